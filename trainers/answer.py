"""What one snapshot says of a text, with its doubt: a function of the snapshot and of this text alone.

    p(k | x) = mean over draws of p_s(k | x)                      or what the panel makes of it
    total H[p] = aleatoric (what every hypothesis is unsure of by itself) + epistemic (what they differ on)

A text goes through the model by itself, all draws of it as one batch: forward bits differ between batch
shapes, so whoever batched texts would answer one text in as many ways as it may have company. The draws are
those that foretold the stream when this snapshot was head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from posterior import panel
from posterior.families import make_family
from posterior.family import ONE_TASK, Draw, Family, Tensors
from posterior.folding import folded, once
from posterior.panel import NEW, Panel
from posterior.predict import entropy, mixture
from posterior.sight import glance
from posterior.tensors import from_bytes, require_finite
from trainers.activations import Activations
from trainers.evaluate import draws_of
from trainers.model import AdaptedModel
from trainers.noise import key
from trainers.window import FamilySpec

INTERVAL = (0.05, 0.95)  # of the draws
MOST_TASKS: Final = 64  # whose draws are kept; whoever asks may name any, and each costs as much as a state


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One text's answer; `probabilities` of the known classes and `novelty` sum to 1, doubts are nats.

    `interval` holds nine tenths of what single draws give to `label`, which is the likeliest known class.
    """

    label: str
    probabilities: Mapping[str, float]
    novelty: float
    interval: tuple[float, float]
    total: float
    aleatoric: float
    epistemic: float

    @property
    def confidence(self) -> float:
        """The probability of `label`."""
        return self.probabilities[self.label]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpec:
    """How snapshots of a chain are asked, beside their model: plain data, the same for all of them."""

    family: FamilySpec
    chain_seed: int
    draws: int
    pi_new: float


class NothingLearned(ValueError):
    """A snapshot that knows no class answers nothing."""


@final
class Answerer:
    """One snapshot, ready to be asked; for one thread at a time, since the model is."""

    def __init__(
        self,
        model: AdaptedModel,
        activations: Activations,
        family: Family[Any, Any],
        tensors: Tensors,
        labels: Sequence[str],
        *,
        window: int,
        chain_seed: int,
        draws: int,
        pi_new: float,
    ) -> None:
        """Restore the belief; NothingLearned if it knows no class, or is one of tokens."""
        if not labels or model.spec.objective == "tokens":
            msg = f"the snapshot of window {window} knows no class yet; it can answer once it has learned one"
            raise NothingLearned(msg)
        beside, own = panel.restore(tensors)
        self._model, self._activations = model, activations
        self._rows = tuple(labels)
        self._labels = once(labels) if beside is None else panel.known(beside, labels)
        self._family, self._state = family, family.restore(own)
        self._panel, self._heads = beside, None if beside is None else panel.believed(beside, labels)
        self._seed, self._draws, self._pi_new = key(chain_seed, window), draws, pi_new
        self._drawn: OrderedDict[str, Draw] = OrderedDict()

    @torch.no_grad()
    def answer(self, text: str, task: str = ONE_TASK) -> Answer:
        """Answer one text."""
        log_p, each, aleatoric = self._judged(text, self._said(text, task))
        require_finite({"answer": log_p.exp()}, where="an answer")
        p = log_p.exp().tolist()
        best = min(range(len(self._labels)), key=lambda k: (-p[k], self._labels[k]))
        low, high = torch.quantile(each[:, best], torch.tensor(INTERVAL, dtype=each.dtype)).tolist()
        total = float(entropy(log_p))
        aleatoric = min(aleatoric, total)  # the tempered experts of a mixture are not quite a mixture
        return Answer(
            label=self._labels[best],
            probabilities=dict(zip(self._labels, p, strict=False)),
            novelty=p[-1],
            interval=(low, high),
            total=total,
            aleatoric=aleatoric,
            epistemic=total - aleatoric,
        )

    def _said(self, text: str, task: str) -> Tensor:
        """Return what the class rows of every draw say, log-probabilities (draws, rows)."""
        draw = self._of(task)
        count = max(len(weights) for weights in draw.values())
        logits = self._model.logits(self._activations.of([text]) * count, draw)
        return torch.log_softmax(logits.double(), dim=-1)

    def _of(self, task: str) -> Draw:
        """Return all draws for a task as one batch; those of `MOST_TASKS` are kept."""
        if task not in self._drawn:
            samplers = draws_of(self._family, self._state, tasks=[task], count=self._draws, seed=self._seed)
            each = [sampler([task]) for sampler in samplers]
            self._drawn[task] = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        self._drawn.move_to_end(task)
        if len(self._drawn) > MOST_TASKS:
            self._drawn.popitem(last=False)
        return self._drawn[task]

    def _judged(self, text: str, said: Tensor) -> tuple[Tensor, Tensor, float]:
        """Return log p of the classes and of a new one (K + 1,), p by each draw (draws, K + 1), aleatoric."""
        if self._panel is not None:
            return self._paneled(self._panel, text, said)
        old, new = torch.tensor([1 - self._pi_new, self._pi_new], dtype=said.dtype).log()
        each = torch.cat([folded(said, self._rows) + old, new.expand(len(said), 1)], dim=1)
        return mixture(each), each.exp(), float(entropy(each).mean())

    def _paneled(self, beside: Panel, text: str, said: Tensor) -> tuple[Tensor, Tensor, float]:
        assert self._heads is not None
        seen = glance(self._heads, self._activations.sight([text]))
        log_p = panel.told(beside, mixture(said).unsqueeze(0), seen)[0]
        each = panel.told(beside, said, seen).exp()
        return log_p, each, float(panel.dispute(beside, said, seen).mean())


def answerer_of(
    model: AdaptedModel,
    activations: Activations,
    spec: AnswerSpec,
    posterior: bytes,
    *,
    labels: Sequence[str],
    window: int,
) -> Answerer:
    """Make a snapshot ready to be asked; the one place where whoever answers is put together.

    NothingLearned if it knows no class; ValueError for a family that is not known here.
    """
    return Answerer(
        model,
        activations,
        make_family(spec.family.name, spec.family.options),
        from_bytes(posterior),
        labels,
        window=window,
        chain_seed=spec.chain_seed,
        draws=spec.draws,
        pi_new=spec.pi_new,
    )


def as_forecast(answer: Answer) -> dict[str, float]:
    """Return the answer as a forecast is written: the known classes, and `NEW`."""
    return {**answer.probabilities, NEW: answer.novelty}
