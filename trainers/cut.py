"""A stack of layers cut in two: a prefix that stops where the top begins. Torch only.

What comes before the stack (embeddings) and after it (a last norm) is in both halves; a hook hands the
prefix's output to the top's first layer instead of what the top's own embeddings made of it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainers.sites import NoSuchSite


class Stop(Exception):
    """Control flow, never seen outside: the prefix ends here."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


def stop_at_input(_: nn.Module, args: Any, kwargs: Any) -> None:
    """Leave the forward pass with what enters this layer."""
    raise Stop(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])


def locate(model: nn.Module, names: Sequence[str]) -> tuple[str, int]:
    """Return the name of the stack of layers that holds all sites, and the first adapted index."""
    stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    for stack in sorted(stacks, key=len):
        if names and all(n.startswith(f"{stack}.") for n in names):
            return stack, min(int(n.removeprefix(f"{stack}.").split(".")[0]) for n in names)
    msg = f"no one stack of layers holds all of {list(names)}; there are {stacks}"
    raise NoSuchSite(msg)


def layers_of(model: nn.Module, stack: str) -> list[nn.Module]:
    """Return the layers of a stack."""
    found = model.get_submodule(stack)
    assert isinstance(found, nn.ModuleList)
    return list(found)


def above(model: nn.Module, stack: str, first: int) -> Any:
    """Return a model that shares all weights but holds only the layers from `first` on.

    Some models ask their configuration of what kind layer i is (a sliding window, or all that came
    before): the copy's is cut at the same place.
    """
    shared = {id(p): p for p in (*model.parameters(), *model.buffers())}
    top: Any = copy.deepcopy(model, memo=shared)
    parent, _, leaf = stack.rpartition(".")
    layers = layers_of(top, stack)
    setattr(top.get_submodule(parent), leaf, nn.ModuleList(layers[first:]))
    kinds = getattr(getattr(top, "config", None), "layer_types", None)
    if kinds is not None and len(kinds) == len(layers):
        top.config.layer_types = kinds[first:]
    return top


def renumber(name: str, stack: str, first: int) -> str:
    """Return a module's name in the top, given its name in the whole."""
    index, _, rest = name.removeprefix(f"{stack}.").partition(".")
    return f"{stack}.{int(index) - first}.{rest}"


def padded(activations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return activations as one batch, padded on the right where positions stay, and its mask."""
    hidden = nn.utils.rnn.pad_sequence(list(activations), batch_first=True)
    lengths = torch.tensor([a.shape[0] for a in activations])
    mask = (torch.arange(hidden.shape[1])[None, :] < lengths[:, None]).long()
    return hidden, mask


def pooled(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """Return one vector per text: its first token's, its last real token's, or the mean."""
    if how == "first":
        return hidden[:, 0]
    if how == "last":
        return hidden[torch.arange(len(hidden)), mask.sum(dim=1) - 1]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
