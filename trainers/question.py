"""What a model is asked of texts, and what the answers are worth: one kind of question per objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from posterior.folding import folded, once
from trainers.activations import Activations
from trainers.evaluate import Sampler, log_predictive, tempered_cost
from trainers.likelihood import Classification
from trainers.model import AdaptedModel
from trainers.update import Likelihood

Example = tuple[str, str]  # (text, label)


class Question(Protocol):
    """Who predicts and what is learned from; `labels` are the classes known at the time."""

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Name the numbers of a forecast; those of one name add up. None: nothing can be said yet."""
        ...

    def foretell(self, texts: Sequence[str], tasks: Sequence[str], draws: Sequence[Sampler]) -> Tensor:
        """Return a forecast of each text, (n, columns), float64."""
        ...

    def judged(self, members: Sequence[Example], labels: Sequence[str]) -> Mapping[int, int]:
        """Return the members on which priors may be compared, and what group each stands for."""
        ...

    def costs(
        self,
        members: Sequence[Example],
        tasks: Sequence[str],
        draws: Sequence[Sampler],
        labels: Sequence[str],
    ) -> Tensor:
        """Return what each member's truth cost, for comparing priors: nats, (n,), float64."""
        ...

    def nats(
        self, members: Sequence[Example], tasks: Sequence[str], weights: Sampler, labels: Sequence[str]
    ) -> Tensor:
        """Return -log p(truth) of each member under these weights alone, (n,), float64."""
        ...

    def evidence(self, members: Sequence[Example], labels: Sequence[str]) -> tuple[Likelihood, float]:
        """Return what members are likely under, and N_t: 0 where there is nothing to learn."""
        ...

    def outcomes(self, members: Sequence[Example], before: Sequence[str]) -> int:
        """Return between how many outcomes the belief can have learned to tell, these members included.

        `before` are the classes of which it had evidence: a label map may name more.
        """
        ...


@final
@dataclass(frozen=True, slots=True)
class WhichClass:
    """Of which class is a text? By class rows, wherever those started."""

    model: AdaptedModel
    activations: Activations

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the class of each row."""
        return tuple(labels)

    def foretell(self, texts: Sequence[str], tasks: Sequence[str], draws: Sequence[Sampler]) -> Tensor:
        """Return p(row)."""
        return log_predictive(self.model, self.activations.of(texts), tasks, draws).exp()

    def judged(self, members: Sequence[Example], labels: Sequence[str]) -> Mapping[int, int]:
        """Return the members of known classes, by class: a class counts the same however frequent."""
        return {i: labels.index(label) for i, (_, label) in enumerate(members) if label in labels}

    def costs(
        self,
        members: Sequence[Example],
        tasks: Sequence[str],
        draws: Sequence[Sampler],
        labels: Sequence[str],
    ) -> Tensor:
        """Return -log p(label) under the mixture at its best temperature."""
        return tempered_cost(*self._said(members, tasks, draws, labels))

    def nats(
        self, members: Sequence[Example], tasks: Sequence[str], weights: Sampler, labels: Sequence[str]
    ) -> Tensor:
        """Return -log p(label) by class rows."""
        log_p, truth = self._said(members, tasks, [weights], labels)
        return -log_p[torch.arange(len(truth)), truth]

    def _said(
        self,
        members: Sequence[Example],
        tasks: Sequence[str],
        draws: Sequence[Sampler],
        labels: Sequence[str],
    ) -> tuple[Tensor, Tensor]:
        texts = self.activations.of([text for text, _ in members])
        classes = once(labels)
        truth = torch.tensor([classes.index(label) for _, label in members])
        return folded(log_predictive(self.model, texts, tasks, draws), labels), truth

    def evidence(self, members: Sequence[Example], labels: Sequence[str]) -> tuple[Likelihood, float]:
        """Return the softmax over classes; each example counts once."""
        texts, classes = self.activations.of([text for text, _ in members]), once(labels)
        targets = [classes.index(label) for _, label in members]
        return Classification(self.model, texts, targets, len(classes), labels), float(len(members))

    def outcomes(self, members: Sequence[Example], before: Sequence[str]) -> int:
        """Return the number of classes seen."""
        return len({*before, *(label for _, label in members)})
