"""Who walks: a belief on adapters, the same with replay, a bag of words."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from river.feature_extraction import BagOfWords
from river.naive_bayes import MultinomialNB
from torch import Tensor

from benchmarks.study.chain import Belief, Chain, Frozen, bytes_of
from benchmarks.study.streams import Example
from posterior.families import make_family
from posterior.family import ONE_TASK
from stream.plan import Forecast
from trainers.evaluate import BATCH, draws_of
from trainers.window import FamilySpec, LearnSpec

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
        self._frozen, self._chain = frozen, Chain(frozen, seed)
        self._family, self._learn = family, learn
        self._belief, self._reservoir = Belief(), Reservoir(replayed, seed)

    def foretell(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask with the draws of the predictive."""
        return self._chain.asked(self._belief, texts, self._family, self._spec())

    def recall(self, texts: Sequence[str]) -> Sequence[Forecast | None]:
        """Ask the mean."""
        return self._chain.asked(self._belief, texts, self._family, replace(self._spec(), draws=0))

    def learn(self, window: Sequence[Example]) -> None:
        """Update on the window and what is replayed, then fill the reservoir."""
        learned = (*window, *self._reservoir.held)
        self._belief = self._chain.learned(self._belief, learned, self._family, self._spec())
        self._reservoir.offer(window)

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return what the adapted model makes of texts, (n, features), by its mean weights."""
        family = make_family(self._family.name, self._family.options)
        state = family.restore(self._belief.tensors)
        (mean,) = draws_of(family, state, tasks=[ONE_TASK], count=0, seed=0)
        activations = self._frozen.activations.of(texts)
        batches = (activations[i : i + BATCH] for i in range(0, len(texts), BATCH))
        return torch.cat([self._frozen.model.features(b, mean([ONE_TASK])) for b in batches])

    def carried(self) -> int:
        """Count the tensors' bytes, and the replayed texts'."""
        return bytes_of(self._belief.tensors) + sum(len(e.text.encode()) for e in self._reservoir.held)

    def _spec(self) -> LearnSpec:
        return self._learn(self._belief.windows)


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
