"""The one page to read before adding a method.

A *family* is a set of distributions over the weights of an adapted model, closed under "yesterday's
posterior is today's prior". Posterior and prior are two roles of one state type: a frozen dataclass whose
fields are mappings from slot name to tensor, so that saving, hashing and moving it need no code per family.

    base     p_0          what is believed before any evidence: a function of slots and seed alone
    grow     q -> q       the same belief over slots with more head rows, new rows as in the base
    forget   q -> p_t     power prior; beta = 1 is exact Bayes and returns the state itself
    origin, place         coordinates in which a step has the same meaning for every weight
    sample, mean          weights for the model to run with
    kl       q, p -> nats total, not per weight
    settle   q -> q       what happens once a window is over (BLoB freezes B)

Randomness comes in as standard normals whose shapes the family names in `noise`; where they come from
(one stream per example, keyed by seed, epoch and position) is the trainer's business, so no family can
draw by rank or touch the global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from torch import Tensor

Role = Literal["down", "up", "head"]
Tensors = Mapping[str, Tensor]

# A draw gives every slot a tensor (n, *slot.shape): n = 1 shared by the batch, or one per sequence.
Draw = Tensors

S = TypeVar("S")


class NotFinite(ArithmeticError):
    """A belief stopped being a number; the message names the site and the window."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the model that takes weights.

    role "down": LoRA's A, shape (rank, d_in) · "up": LoRA's B, shape (d_out, rank) · "head": class rows,
    shape (classes, features + 1), the last column being the bias.
    """

    name: str
    shape: tuple[int, ...]
    role: Role


@dataclass(frozen=True, slots=True)
class Facts:
    """What a family may know of a finished window when it settles."""

    classes_seen: int
    window: int


class Family(Protocol[S]):
    """One method. Functions only: no state but `S`, no randomness but what is passed in."""

    @property
    def name(self) -> str:
        """The word that selects this family in the configuration."""
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

    def origin(self, prior: S) -> Tensors:
        """Return the free coordinates at which `place` gives the prior back (all zero)."""
        ...

    def place(self, prior: S, coordinates: Tensors) -> S:
        """Return the state at these coordinates, differentiably; one unit means one prior deviation."""
        ...

    def noise(self, state: S) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of the standard normals one draw consumes, by name, in a fixed order."""
        ...

    def sample(self, state: S, noise: Tensors) -> Draw:
        """Return weights for n sequences from noise of shape (n, *shape); differentiable in the state."""
        ...

    def mean(self, state: S) -> Draw:
        """Return the mean weights as a draw with n = 1."""
        ...

    def kl(self, state: S, prior: S) -> Tensor:
        """Return KL(state || prior) in nats, a float64 scalar; 0 only at equality."""
        ...

    def settle(self, state: S, facts: Facts) -> S:
        """Return the state a finished window hands on."""
        ...


def tensors_of(state: object) -> dict[str, Tensor]:
    """Flatten a state to `field/slot` -> tensor, in field order."""
    fields: Mapping[str, object] = {
        name: getattr(state, name) for name in getattr(state, "__dataclass_fields__", {})
    }
    return {
        f"{field}/{slot}": tensor
        for field, tensors in fields.items()
        if isinstance(tensors, Mapping)
        for slot, tensor in tensors.items()
    }


def state_of(make: Callable[..., S], fields: Sequence[str], tensors: Tensors) -> S:
    """Rebuild a state from `tensors_of`; the inverse for any dataclass of mappings."""
    grouped: dict[str, dict[str, Tensor]] = {field: {} for field in fields}
    for key, tensor in tensors.items():
        field, _, slot = key.partition("/")
        grouped[field][slot] = tensor
    return make(**grouped)
