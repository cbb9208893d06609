"""What applies a draw at a site of a frozen model: LoRA, a parallel adapter, a prefix. Torch only.

    lora      W0 x   + (alpha / rank) B (A x)
    adapter   FFN(x) + scale B relu(A x)
    prefix    attention over the keys [P_K ; K] and values [P_V ; V]

Draws are per sequence: every tensor is (n, *slot.shape) with n = batch, or n = 1 shared by all. An empty
draw leaves the model as it is; one that lacks a site's slot is an error. The base may run in half precision;
what a draw does is computed in the draw's own precision and rounded once, as the sum goes back to the base.
In float32 that rounding is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import torch
from torch import Tensor, nn

from posterior import flipout
from posterior.family import Draw, Slot

Modules = Callable[[str], nn.Module]  # a module by its name in the whole encoder
Drawn = Callable[[], Draw]  # the draw in force

_KEYS: Final = ("key", "k_proj", "k_lin")
_VALUES: Final = ("value", "v_proj", "v_lin")


class NoSuchSite(ValueError):
    """A pattern matches nothing that its part can adapt, or no stack of layers holds the sites."""


class Site(Protocol):
    """A place where one part meets the model."""

    @property
    def name(self) -> str:
        """The module's name in the whole encoder, from which its slots are named."""
        ...

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The weights it takes."""
        ...

    def attach(self, module: Modules, drawn: Drawn) -> None:
        """Make every forward pass apply the draw in force."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank matrices beside one linear layer."""

    name: str
    inputs: int
    outputs: int
    rank: int
    scale: float

    @property
    def slots(self) -> tuple[Slot, ...]:
        """A and B."""
        return (
            Slot(f"{self.name}.A", (self.rank, self.inputs), "down"),
            Slot(f"{self.name}.B", (self.outputs, self.rank), "up"),
        )

    def attach(self, module: Modules, drawn: Drawn) -> None:
        """Add to the layer's output."""

        def add(_: nn.Module, args: Any, out: Tensor) -> Tensor:
            draw, (down, up) = drawn(), self.slots
            if not draw:
                return out
            low = flipout.low(args[0], draw, down.name)
            return (out + self.scale * (low @ draw[up.name].transpose(1, 2))).to(out.dtype)

        module(self.name).register_forward_hook(add)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A bottleneck beside a feed-forward block: x enters with `name`, the sum leaves with `leaves`."""

    name: str
    leaves: str
    width: int
    size: int
    scale: float

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The way down and the way up."""
        return (
            Slot(f"{self.name}.adapter.A", (self.size, self.width), "adapter_down"),
            Slot(f"{self.name}.adapter.B", (self.width, self.size), "adapter_up"),
        )

    def attach(self, module: Modules, drawn: Drawn) -> None:
        """Remember what enters; add to what leaves."""
        entered: list[Tensor] = []  # the one input that is under way

        def enter(_: nn.Module, args: Any) -> None:
            entered[:] = [args[0]]

        def add(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            draw, (down, up) = drawn(), self.slots
            came = entered.pop()
            if not draw:
                return out
            low = torch.relu(flipout.low(came, draw, down.name))
            return (out + self.scale * (low @ draw[up.name].transpose(1, 2))).to(out.dtype)

        module(self.name).register_forward_pre_hook(enter)
        module(self.leaves).register_forward_hook(add)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """Keys and values put before an attention's own; its implementation must be `prefixed`."""

    name: str
    length: int
    key_width: int
    value_width: int

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Keys and values, all (key-value) heads side by side."""
        return (
            Slot(f"{self.name}.prefix.K", (self.length, self.key_width), "prefix_key"),
            Slot(f"{self.name}.prefix.V", (self.length, self.value_width), "prefix_value"),
        )

    def attach(self, module: Modules, drawn: Drawn) -> None:
        """Hand the prefix to the attention implementation beside its other arguments."""

        def give(_: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
            draw = drawn()
            if not draw:
                return args, kwargs
            return args, {**kwargs, "prefix": tuple(draw[slot.name] for slot in self.slots)}

        module(self.name).register_forward_pre_hook(give, with_kwargs=True)


def prefixed(attend: Callable[..., Any]) -> Callable[..., Any]:
    """Return `attend`, an attention in the form transformers calls, taking a prefix where one is given.

    query (batch, heads, T, d), key and value (batch, key-value heads, S, d). A prefix has no position:
    it is seen by every token, and keys that are rotated by position are so before it is put before them.
    """

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        prefix: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Any:
        if prefix is None:
            return attend(module, query, key, value, attention_mask, **kwargs)
        causal = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        mask = _causal(query, key) if attention_mask is None and causal else attention_mask
        keys, values = (_before(p, own) for p, own in zip(prefix, (key, value), strict=True))
        return attend(module, query, keys, values, _widened(mask, prefix[0].shape[1]), **kwargs)

    return attention


def _before(prefix: Tensor, own: Tensor) -> Tensor:
    """Put (n, p, heads * d) before (batch, heads, S, d) on the axis of tokens."""
    batch, heads, _, width = own.shape
    split = prefix.to(own.dtype).reshape(*prefix.shape[:2], heads, width).transpose(1, 2)
    return torch.cat([split.expand(batch, -1, -1, -1), own], dim=2)


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """Return the mask that an attention without one implies, (1, 1, T, S), True where it looks."""
    tokens, seen = query.shape[2], key.shape[2]
    return torch.ones(1, 1, tokens, seen, dtype=torch.bool, device=key.device).tril(seen - tokens)


def _widened(mask: Tensor | None, length: int) -> Tensor | None:
    """Return the mask with `length` columns that all may see: True in a boolean one, else 0 to add."""
    if mask is None:
        return None
    return nn.functional.pad(mask, (length, 0), value=1.0 if mask.dtype == torch.bool else 0.0)


def lora_sites(model: nn.Module, pattern: str, *, rank: int, alpha: float) -> list[Site]:
    """Return the linear layers whose names match."""
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    found: list[Site] = [
        Lora(name=n, inputs=m.in_features, outputs=m.out_features, rank=rank, scale=alpha / rank)
        for n, m in linears.items()
        if re.search(pattern, n)
    ]
    return _some(found, pattern, "linear layer", list(linears))


def adapter_sites(model: nn.Module, pattern: str, *, width: int, size: int, scale: float) -> list[Site]:
    """Return the feed-forward blocks whose names match; `width` is the encoder's.

    A BERT-like layer has no module for the whole block: name its `intermediate`, and the sum is added
    where the block ends, at `output.dense` beside it. Llama's `mlp` is a whole block.
    """
    modules = dict(model.named_modules())
    blocks = [n for n in modules if n.endswith(_BLOCKS)]
    found: list[Site] = [
        Adapter(name=n, leaves=_end_of_block(n), width=width, size=size, scale=scale)
        for n in modules
        if re.search(pattern, n) and _end_of_block(n) in modules
        if _widths(modules[n])[:1] == _widths(modules[_end_of_block(n)])[-1:] == [width]
    ]
    return _some(found, pattern, "feed-forward block", blocks)


_BLOCKS: Final = (".intermediate", ".mlp", ".ffn")


def _end_of_block(name: str) -> str:
    parent, _, leaf = name.rpartition(".")
    return f"{parent}.output.dense" if leaf == "intermediate" else name


def _widths(module: nn.Module) -> list[int]:
    """Return what the linear layers of a module take and give, in order."""
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return [width for m in linears for width in (m.in_features, m.out_features)]


def prefix_sites(model: nn.Module, pattern: str, *, length: int) -> list[Site]:
    """Return the attentions whose names match: modules with a key and a value projection of their own."""
    widths = {n: w for n, m in model.named_modules() if (w := _key_value_widths(m)) is not None}
    found: list[Site] = [
        Prefix(name=n, length=length, key_width=k, value_width=v)
        for n, (k, v) in widths.items()
        if re.search(pattern, n)
    ]
    return _some(found, pattern, "attention", list(widths))


def _key_value_widths(module: nn.Module) -> tuple[int, int] | None:
    children = {n: m.out_features for n, m in module.named_children() if isinstance(m, nn.Linear)}
    for key, value in zip(_KEYS, _VALUES, strict=True):
        if key in children and value in children:
            return children[key], children[value]
    return None


def _some(found: list[Site], pattern: str, what: str, known: Sequence[str]) -> list[Site]:
    if not found:
        msg = f"{pattern!r} matches no {what}; there are {list(known[:8])}, ..."
        raise NoSuchSite(msg)
    return found
