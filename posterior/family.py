"""The one page to read before adding a method.

A *family* is a set of distributions over the weights of an adapted model, closed under "yesterday's
posterior is today's prior". It has two types, which for most methods are one and the same:

    S   what a chain hands on: a frozen dataclass whose fields are mappings from slot name to tensor, so
        that saving, hashing and moving it need no code per family
    W   the belief that a window of some tasks works on; prior and posterior are two roles of it

A window goes round once:

    base     -> S             what is believed before any evidence: a function of slots and seed alone
    grow     S -> S           the same belief over slots with more head rows, new rows as in the base
    forget   S -> S           power prior; beta = 1 is exact Bayes and returns the state itself
    open     S, tasks -> W    the prior of these tasks
      origin, place           coordinates in which a step has the same meaning for every weight
      sample, mean            weights for the model to run with
      kl     W, W -> nats     total, not per weight
      marginal W, slots -> W  what is believed of some slots alone
      absorb W, rows -> W     curvature counted in, for families that do not learn it by gradients
    settle   S, W, W -> S     what the window hands on

Randomness comes in as standard normals whose shapes the family names in `noise`; where they come from
(one stream per example, keyed by seed, epoch and position) is the trainer's business, so no family can
draw by rank or touch the global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, Protocol, TypeVar

from torch import Tensor

Role = Literal["down", "up", "adapter_down", "adapter_up", "prefix_key", "prefix_value", "head"]
Part = Literal["lora", "adapter", "prefix"]  # the roles that come together: down and up, key and value
Tensors = Mapping[str, Tensor]

# A draw gives every slot a tensor (n, *slot.shape): n = 1 shared by the batch, or one per sequence. Names
# that begin with ~ are no slots but notes to the sites (`posterior.flipout`).
Draw = Tensors

ONE_TASK: Final = ""  # the task of examples that name none

S = TypeVar("S")
W = TypeVar("W")


class NotFinite(ArithmeticError):
    """A belief stopped being a number; the message names the site and the window."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the model that takes weights.

    role "down": LoRA's A, shape (rank, d_in) · "up": LoRA's B, shape (d_out, rank) · "adapter_down",
    "adapter_up": the same of a parallel adapter with a nonlinearity between them · "prefix_key",
    "prefix_value": put before an attention's own, shape (length, d) · "head": class rows, shape (classes,
    features + 1), the last column being the bias.
    """

    name: str
    shape: tuple[int, ...]
    role: Role


@dataclass(frozen=True, slots=True)
class Facts:
    """What a family may know of a finished window when it settles; `tasks` are those it held.

    `classes_seen` counts those of which there is evidence in this belief; tokens of a language model count.
    """

    classes_seen: int
    window: int
    tasks: tuple[str, ...] = (ONE_TASK,)


class Family(Protocol[S, W]):
    """One method. Functions only: no state but `S` and `W`, no randomness but what is passed in."""

    @property
    def name(self) -> str:
        """The word that selects this family in the configuration."""
        ...

    @property
    def curved(self) -> bool:
        """Whether the trainer is to hand the window's curvature to `absorb`."""
        ...

    def restore(self, tensors: Tensors) -> S:
        """Return the state that `tensors_of` flattened."""
        ...

    def base(self, slots: Sequence[Slot], *, seed: int, centres: Tensors) -> S:
        """Return the base prior p_0 over these slots.

        The seed fixes random initial directions; `centres` gives weights of a warm start to centre
        the slots it names on instead.
        """
        ...

    def grow(self, state: S, base: S) -> S:
        """Return the state over base's slots: rows it lacks are taken from base, the rest is untouched."""
        ...

    def forget(self, state: S, base: S, *, beta: float) -> S:
        """Return the prior p_t = state^beta base^(1-beta), normalised; beta = 1 returns `state` itself."""
        ...

    def open(self, state: S, tasks: Sequence[str]) -> W:
        """Return the belief about the weights of these tasks (distinct, sorted), ready to be learned from."""
        ...

    def origin(self, prior: W) -> Tensors:
        """Return the free coordinates at which `place` gives the prior back (all zero)."""
        ...

    def place(self, prior: W, coordinates: Tensors, *, shape: W) -> W:
        """Return the belief at these coordinates, differentiably; one unit means one prior deviation.

        What is not learned by gradients is `shape`'s: the prior itself, or what `absorb` last made.
        """
        ...

    def noise(self, state: W) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of the standard normals one draw consumes, by name, in a fixed order."""
        ...

    def sample(self, state: W, noise: Tensors, tasks: Sequence[str]) -> Draw:
        """Return weights for sequences of these tasks, differentiable in the state.

        `noise` has shape (n, *shape) with n = len(tasks), or n = 1 for one draw that all share.
        """
        ...

    def mean(self, state: W, tasks: Sequence[str]) -> Draw:
        """Return the mean weights as a draw; n = 1 where they are the same for all tasks."""
        ...

    def kl(self, state: W, prior: W) -> Tensor:
        """Return KL(state || prior) in nats, a float64 scalar; 0 only at equality."""
        ...

    def marginal(self, state: W, slots: Collection[str]) -> W:
        """Return the belief about these slots alone; `kl` of two such is what a window taught of them.

        `part_of` does it where slots are independent of each other.
        """
        ...

    def absorb(self, prior: W, state: W, rows: Tensors) -> tuple[W, float]:
        """Return `state` with the prior's precision plus sum_n g_n g_n', and the nats that were dropped.

        `rows` gives every slot (n, *slot.shape); together they are the n vectors g_n. Families that
        learn their spread by gradients return `state` and 0.
        """
        ...

    def settle(self, state: S, prior: W, posterior: W, facts: Facts) -> S:
        """Return the state a finished window hands on; `state` is what `prior` was opened from."""
        ...


def part_of(state: W, slots: Collection[str]) -> W:
    """Return what a belief in which slots are independent says of these; flags stay behind."""
    whole: Any = state
    mappings = {f.name: getattr(whole, f.name) for f in fields(whole)}
    chosen = {
        name: {k: v for k, v in held.items() if k in slots}
        for name, held in mappings.items()
        if isinstance(held, Mapping)
    }
    part: W = replace(whole, **chosen)
    return part


def tensors_of(state: object) -> dict[str, Tensor]:
    """Flatten a state to `field/slot` -> tensor, in field order."""
    values: Mapping[str, object] = {
        name: getattr(state, name) for name in getattr(state, "__dataclass_fields__", {})
    }
    return {
        f"{field}/{slot}": tensor
        for field, tensors in values.items()
        if isinstance(tensors, Mapping)
        for slot, tensor in tensors.items()
    }


def state_of(make: Callable[..., S], tensors: Tensors) -> S:
    """Rebuild a dataclass of mappings from `tensors_of`; its inverse."""
    kind: Any = make
    grouped: dict[str, dict[str, Tensor]] = {field.name: {} for field in fields(kind)}
    for key, tensor in tensors.items():
        field, _, slot = key.partition("/")
        grouped[field][slot] = tensor
    return make(**grouped)
