"""A causal language model learns its next tokens; there are no classes.

    log p(text) = sum_t log p(token_t | tokens before it)       t from the second token on

The chain rule makes tokens of one text count in full where the model is right. Where it is not, a text
misleads all its tokens alike: N_t is the number of predicted tokens times `correlation`, stated in the
settings. With m the mean number of predicted tokens per text, likelihoods are divided by m, so that

    loss = sum nll / tokens + KL / (correlation tokens)         tokens = m x examples
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from torch.nn import functional

from posterior.family import Draw
from posterior.predict import mixture
from trainers.activations import Activations
from trainers.evaluate import BATCH, Sampler
from trainers.likelihood import softmax_root
from trainers.model import AdaptedModel
from trainers.question import Example
from trainers.update import Likelihood

NATS: Final = "nats"  # what a whole text cost
TOKENS: Final = "tokens"  # of which so many were predicted


def token_logits(
    model: AdaptedModel, texts: Sequence[Tensor], ids: Sequence[Tensor], draw: Draw
) -> list[Tensor]:
    """Return the logits of each text's tokens from the second on, (tokens - 1, V) each."""
    hidden, _ = model.hidden(texts, draw)
    return [model.out.logits(h[: len(own) - 1]) for h, own in zip(hidden, ids, strict=True)]


def text_nlls(model: AdaptedModel, texts: Sequence[Tensor], ids: Sequence[Tensor], draw: Draw) -> Tensor:
    """Return what each text costs in nats, (n,)."""
    logits = token_logits(model, texts, ids, draw)
    pairs = zip(logits, ids, strict=True)
    return torch.stack([functional.cross_entropy(f, own[1:], reduction="sum") for f, own in pairs])


@final
@dataclass(frozen=True, slots=True)
class NextToken:
    """Softmax over the vocabulary at every token; an example is a text, in units of `mean_tokens`."""

    model: AdaptedModel
    texts: Sequence[Tensor]
    ids: Sequence[Tensor]
    mean_tokens: float

    @property
    def outputs(self) -> int:
        """Signs an example takes: one for each of its tokens, one for each of the vocabulary."""
        return max(len(own) for own in self.ids) + self.model.out.tokens

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        """Return the summed cost of texts over the mean number of tokens."""
        texts, ids = self._of(positions)
        nats: Tensor = text_nlls(self.model, texts, ids, draw).sum()
        return nats / self.mean_tokens

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        """Return sum_t f_t . R_t z_t / sqrt(m), with z_t = e_t z.

        Tokens share the vocabulary's signs z but not their own e_t, so that E[z_t z_s'] is 1 for t = s and
        0 otherwise, as with signs for each pair: a text needs V + T of them and not V T.
        """
        texts, ids = self._of(positions)
        total = torch.zeros(())
        for f, z in zip(token_logits(self.model, texts, ids, draw), signs, strict=True):
            vocabulary, own = z[: f.shape[1]], z[f.shape[1] :][: len(f)]
            root = softmax_root(torch.softmax(f.detach(), dim=-1), own[:, None] * vocabulary)
            total = total + (f * root).sum()
        return total / math.sqrt(self.mean_tokens)

    def _of(self, positions: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        return [self.texts[i] for i in positions], [self.ids[i] for i in positions]


@final
@dataclass(frozen=True, slots=True)
class NextTokens:
    """What comes next in a text? Labels say when a text may be learned, and nothing else."""

    model: AdaptedModel
    activations: Activations
    correlation: float

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return what is said of a text whatever classes there are."""
        del labels
        return (NATS, TOKENS)

    def foretell(self, texts: Sequence[str], tasks: Sequence[str], draws: Sequence[Sampler]) -> Tensor:
        """Return each text's cost under the mixture and its number of predicted tokens."""
        counts = [len(self.model.tokens(text)) - 1 for text in texts]
        return torch.stack([self._costs(texts, tasks, draws), torch.tensor(counts).double()], dim=1)

    def judged(self, members: Sequence[Example], labels: Sequence[str]) -> Mapping[int, int]:
        """Return all members, as one group."""
        del labels
        return dict.fromkeys(range(len(members)), 0)

    def costs(
        self,
        members: Sequence[Example],
        tasks: Sequence[str],
        draws: Sequence[Sampler],
        labels: Sequence[str],
    ) -> Tensor:
        """Return -log p(text) under the mixture."""
        del labels
        return self._costs([text for text, _ in members], tasks, draws)

    def nats(
        self, members: Sequence[Example], tasks: Sequence[str], weights: Sampler, labels: Sequence[str]
    ) -> Tensor:
        """Return -log p(text)."""
        return self.costs(members, tasks, [weights], labels)

    def evidence(self, members: Sequence[Example], labels: Sequence[str]) -> tuple[Likelihood, float]:
        """Return the likelihood of texts; N_t is predicted tokens times `correlation`."""
        del labels
        texts = [text for text, _ in members]
        ids = [self.model.tokens(text) for text in texts]
        tokens = sum(len(own) - 1 for own in ids)
        mean_tokens = max(1, tokens) / len(ids)
        return NextToken(self.model, self.activations.of(texts), ids, mean_tokens), self.correlation * tokens

    def outcomes(self, members: Sequence[Example], before: Sequence[str]) -> int:
        """Return the size of the vocabulary: any text tells tokens apart."""
        del members, before
        return self.model.out.tokens

    @torch.no_grad()
    def _costs(self, texts: Sequence[str], tasks: Sequence[str], draws: Sequence[Sampler]) -> Tensor:
        """Mix over draws per text: one set of weights wrote it all, and earlier tokens tell which."""
        parts = []
        for start in range(0, len(texts), BATCH):
            batch, whose = texts[start : start + BATCH], tasks[start : start + BATCH]
            held, ids = self.activations.of(batch), [self.model.tokens(text) for text in batch]
            costs = [text_nlls(self.model, held, ids, draw(whose)) for draw in draws]
            parts.append(-mixture(-torch.stack(costs).double()))
        return torch.cat(parts)
