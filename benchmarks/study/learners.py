"""Who walks: a belief on adapters, the same with replay, a bag of words."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from river.feature_extraction import BagOfWords
from river.naive_bayes import MultinomialNB
from torch import Tensor

from benchmarks.study.streams import Example
from posterior.families import make_family
from posterior.family import ONE_TASK, Tensors
from stream.plan import Forecast, window_seed
from trainers.activations import Activations
from trainers.evaluate import BATCH, draws_of
from trainers.model import AdaptedModel
from trainers.update import InProcess
from trainers.window import FamilySpec, LearnSpec, Order, Outcome, carry_out


@dataclass(frozen=True, slots=True)
class Frozen:
    """The model that nothing changes, and what is kept of texts it has met; all learners share it."""

    model: AdaptedModel
    activations: Activations


Labels = tuple[str, ...]
Schedules = Callable[[int], LearnSpec]  # how window 0, 1, ... is learned


@final
class Adapted:
    """A family of belief on adapters and class rows, updated window by window as the chain does it.

    What is recalled is the posterior mean's answer. `replayed` texts of a reservoir are learned beside
    each window; they are steps for a point, and would be evidence counted twice for anything else.
    """

    def __init__(
        self, frozen: Frozen, family: FamilySpec, learn: Schedules, *, seed: int, replayed: int = 0
    ) -> None:
        """Start from the base prior."""
        self._frozen, self._family, self._learn, self._seed = frozen, family, learn, seed
        self._tensors: Tensors = {}
        self._labels: Labels = ()
        self._windows = 0
        self._reservoir = Reservoir(replayed, seed)

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask with the draws of the predictive."""
        return self._asked(texts, self._learn(self._windows))

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the mean."""
        return self._asked(texts, replace(self._learn(self._windows), draws=0))

    def learn(self, window: Sequence[Example]) -> None:
        """Update on the window and what is replayed, then fill the reservoir."""
        learned = (*window, *self._reservoir.held)
        labels = tuple(dict.fromkeys([*self._labels, *(e.label for e in window)]))
        outcome = self._carried_out((), learned, labels, self._learn(self._windows))
        self._reservoir.offer(window)
        self._tensors, self._labels = outcome.tensors, labels
        self._windows += 1

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return what the adapted model makes of texts, (n, features), by its mean weights."""
        family = make_family(self._family.name, self._family.options)
        (mean,) = draws_of(family, family.restore(self._tensors), tasks=[ONE_TASK], count=0, seed=0)
        activations = self._frozen.activations.of(texts)
        batches = (activations[i : i + BATCH] for i in range(0, len(texts), BATCH))
        return torch.cat([self._frozen.model.features(b, mean([ONE_TASK])) for b in batches])

    def carried(self) -> int:
        """Count the tensors' bytes, and the replayed texts'."""
        return bytes_of(self._tensors) + sum(len(e.text.encode()) for e in self._reservoir.held)

    def _asked(self, texts: Sequence[str], learn: LearnSpec) -> Sequence[Forecast | None]:
        if not self._labels or not texts:
            return [None] * len(texts)
        said = self._carried_out(texts, (), self._labels, learn)
        return [dict(zip(said.columns, row, strict=True)) for row in said.forecasts]

    def _carried_out(
        self, texts: Sequence[str], learned: Sequence[Example], labels: Labels, learn: LearnSpec
    ) -> Outcome:
        order = Order(
            window=self._windows,
            family=self._family,
            learn=learn,
            chain_seed=self._seed,
            seed=window_seed(self._seed, self._windows),
            parent=self._tensors,
            labels_before=self._labels,
            labels=labels,
            arrivals=tuple(texts),
            members=tuple((e.text, e.label) for e in learned),
        )
        return carry_out(self._frozen.model, self._frozen.activations, order, InProcess(1))


class Reservoir:
    """A uniform sample of everything offered (algorithm R)."""

    def __init__(self, size: int, seed: int) -> None:
        """Start empty."""
        self._size, self._rng, self._seen = size, random.Random(seed), 0
        self.held: list[Example] = []

    def offer(self, window: Sequence[Example]) -> None:
        """Take each text in with probability size / number of texts so far."""
        for example in window:
            self._seen += 1
            if len(self.held) < self._size:
                self.held.append(example)
            elif self._size and (place := self._rng.randrange(self._seen)) < self._size:
                self.held[place] = example


@final
class NaiveBayes:
    """river's naive Bayes over a bag of words."""

    def __init__(self) -> None:
        """Start without a class."""
        classifier: Any = MultinomialNB  # river leaves its constructor and text input untyped
        self._model: Any = BagOfWords() | classifier()

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Return p(class)."""
        return [_whole(self._model.predict_proba_one(text)) for text in texts]

    recall = foretell

    def learn(self, window: Sequence[Example]) -> None:
        """Count text after text."""
        for example in window:
            self._model.learn_one(example.text, example.label)

    def carried(self) -> int:
        """Count the pickled model's bytes."""
        return len(pickle.dumps(self._model))


def _whole(given: Mapping[str, float]) -> Forecast | None:
    """Return a forecast that sums to 1; river's is off by rounding."""
    whole = sum(given.values())
    return {label: float(p) / whole for label, p in given.items()} if given else None


def bytes_of(tensors: Tensors) -> int:
    """Return what tensors take up."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
