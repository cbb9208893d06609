"""A chain's belief as a value, asked and updated as the chain does it: what learners of the study share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from benchmarks.study.streams import Example
from posterior.family import Tensors
from stream.plan import Forecast, window_seed
from trainers.activations import Activations
from trainers.model import AdaptedModel
from trainers.update import InProcess
from trainers.window import FamilySpec, LearnSpec, Order, Outcome, carry_out

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Frozen:
    """The model that nothing changes, and what is kept of texts it has met; all learners share it."""

    model: AdaptedModel
    activations: Activations


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What is handed on, after so many windows; `labels` names the class of each row."""

    tensors: Tensors = field(default_factory=dict)
    labels: Labels = ()
    windows: int = 0


@final
@dataclass(frozen=True, slots=True)
class Chain:
    """Who carries orders out, on the frozen model that all share."""

    frozen: Frozen
    seed: int

    def asked(
        self, belief: Belief, texts: Sequence[str], family: FamilySpec, learn: LearnSpec
    ) -> Sequence[Forecast | None]:
        """Return what a belief says of texts; None while it knows no class."""
        if not belief.labels or not texts:
            return [None] * len(texts)
        outcome = self._carried_out(belief, family, learn, texts, (), belief.labels)
        return [dict(zip(outcome.columns, row, strict=True)) for row in outcome.forecasts]

    def learned(
        self, belief: Belief, examples: Sequence[Example], family: FamilySpec, learn: LearnSpec
    ) -> Belief:
        """Return the belief after a window of these; of no example it is the belief itself."""
        labels = mapped(belief.labels, examples)
        outcome = self._carried_out(belief, family, learn, (), examples, labels)
        return Belief(tensors=outcome.tensors, labels=labels, windows=belief.windows + 1)

    def _carried_out(
        self,
        belief: Belief,
        family: FamilySpec,
        learn: LearnSpec,
        texts: Sequence[str],
        examples: Sequence[Example],
        labels: Labels,
    ) -> Outcome:
        order = Order(
            window=belief.windows,
            family=family,
            learn=learn,
            chain_seed=self.seed,
            seed=window_seed(self.seed, belief.windows),
            parent=belief.tensors,
            labels_before=belief.labels,
            labels=labels,
            arrivals=tuple(texts),
            members=tuple((e.text, e.label) for e in examples),
        )
        return carry_out(self.frozen.model, self.frozen.activations, order, InProcess(1))


def mapped(labels: Labels, examples: Sequence[Example]) -> Labels:
    """Return the label map with the classes of these, in the order they came."""
    return tuple(dict.fromkeys([*labels, *(e.label for e in examples)]))


def bytes_of(tensors: Tensors) -> int:
    """Return what tensors take up."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
