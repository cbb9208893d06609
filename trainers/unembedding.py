"""A language model's output embedding as class rows: zero-shot answers are where learning begins.

    logit of token v    U_v . h + b_v            h: the final, normalised hidden state
    logit of a class    [c U_v / r ; 0] . [r h / c ; 1]

v is the first token of the class's label. c, the gain of the last norm, gives features the length that
class rows elsewhere meet (sqrt(d)), and r shortens it: a row of deviation sd then moves a logit by about
r sd sqrt(d), by half a nat where sd is .1 and d is 600, so that draws doubt an answer without drowning it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn

REACH: Final = 0.2  # r


class NoPlainOutput(ValueError):
    """The model is no causal language model, or its logits are not linear in its last hidden state."""


@final
@dataclass(frozen=True, slots=True)
class Unembedding:
    """Frozen rows U (V, d) and offsets b (V,) or None, in the model's own precision; `gain` is c."""

    weight: Tensor
    bias: Tensor | None
    gain: float

    @property
    def tokens(self) -> int:
        """The size V of the vocabulary."""
        return self.weight.shape[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of all tokens, (..., V), float32."""
        return nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()

    def features(self, hidden: Tensor) -> Tensor:
        """Return what class rows meet, (..., d)."""
        return hidden * (REACH / self.gain)

    def rows(self, tokens: Sequence[int]) -> Tensor:
        """Return the class rows that say what these tokens' logits say but for b, (n, d + 1)."""
        chosen = self.weight[list(tokens)].float() * (self.gain / REACH)
        return torch.cat([chosen, torch.zeros(len(chosen), 1)], dim=1)


@torch.no_grad()
def unembedding(whole: Any, stack: str, missing: Sequence[str]) -> Unembedding:
    """Return the output embedding of a causal language model; NoPlainOutput if it is not used plainly.

    Some models cap or scale their logits, others have no head of their own in the file (`missing`): one
    forward pass over two tokens tells, whatever the architecture calls it.
    """
    output, name = whole.get_output_embeddings(), type(whole).__name__
    if missing or not isinstance(output, nn.Linear):
        lack = f"{name} has no output embedding in its files (missing: {list(missing)})"
        msg = f"{lack}: it can be asked for classes only"
        raise NoPlainOutput(msg)
    found = Unembedding(output.weight, output.bias, _gain(whole.base_model, stack))
    ids = torch.tensor([[1, 2]])
    said = whole(input_ids=ids).logits.float()
    ours = found.logits(whole.base_model(input_ids=ids).last_hidden_state)
    if not torch.allclose(said, ours, atol=1e-3, rtol=1e-3):
        msg = f"{name} computes its tokens' logits in a way of its own: it can be asked for classes only"
        raise NoPlainOutput(msg)
    return found


def _gain(base: nn.Module, stack: str) -> float:
    """Return the root mean square of the last norm's weights: of a state's entries, once normalised."""
    outside = (m for n, m in base.named_modules() if not n.startswith(f"{stack}."))
    weights = [w for m in outside if isinstance(w := getattr(m, "weight", None), Tensor) and w.ndim == 1]
    return float(weights[-1].float().square().mean().sqrt()) if weights else 1.0
