"""Of which class is a text? Class rows say it, and a panel beside them; see `posterior.panel`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from posterior import panel
from posterior.folding import first_rows
from posterior.panel import Panel
from posterior.sight import Heads, Sight, glance
from trainers.evaluate import Sampler, log_predictive
from trainers.question import Example, WhichClass
from trainers.update import Likelihood, spread_over

HEARD: Final = 256  # members of a window by which the pools' weights are chosen


@final
@dataclass(frozen=True, slots=True)
class Panelled:
    """A question to class rows whose forecasts the panel has its say in; rows alone learn by gradients."""

    rows: WhichClass
    panel: Panel | None  # None: nothing was learned yet, or without a panel
    heads: Heads | None  # of this panel; made once, for a forecast is asked batch after batch

    @classmethod
    def of(cls, rows: WhichClass, beside: Panel | None, labels: Sequence[str]) -> Panelled:
        """Return the question beside this panel, which knows these rows."""
        return cls(rows, beside, None if beside is None else panel.believed(beside, labels))

    def columns(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the known classes, and behind them that of which nobody has seen an event."""
        if self.panel is None:
            return self.rows.columns(labels)
        known = panel.known(self.panel, labels)
        return (*known, panel.NEW) if known else ()

    def foretell(self, texts: Sequence[str], tasks: Sequence[str], draws: Sequence[Sampler]) -> Tensor:
        """Return p(class), the new one last; of a parent without a panel, what its rows say."""
        if self.panel is None or self.heads is None:
            return self.rows.foretell(texts, tasks, draws)
        seen = glance(self.heads, self.rows.activations.sight(texts))
        return panel.told(self.panel, self._said(texts, tasks, draws), seen).exp()

    def judged(self, members: Sequence[Example], labels: Sequence[str]) -> Mapping[int, int]:
        """Return what the rows are judged on."""
        return self.rows.judged(members, labels)

    def costs(
        self,
        members: Sequence[Example],
        tasks: Sequence[str],
        draws: Sequence[Sampler],
        labels: Sequence[str],
    ) -> Tensor:
        """Return what the truth cost the rows: it is their prior that is chosen."""
        return self.rows.costs(members, tasks, draws, labels)

    def nats(
        self, members: Sequence[Example], tasks: Sequence[str], weights: Sampler, labels: Sequence[str]
    ) -> Tensor:
        """Return what the truth costs the rows, which learn by gradients."""
        return self.rows.nats(members, tasks, weights, labels)

    def evidence(self, members: Sequence[Example], labels: Sequence[str]) -> tuple[Likelihood, float]:
        """Return the rows' likelihood."""
        return self.rows.evidence(members, labels)

    def outcomes(self, members: Sequence[Example], before: Sequence[str]) -> int:
        """Return the number of classes seen."""
        return self.rows.outcomes(members, before)

    def after(
        self,
        members: Sequence[Example],
        tasks: Sequence[str],
        draws: Sequence[Sampler],
        *,
        before: Sequence[str],
        labels: Sequence[str],
    ) -> Panel:
        """Return the panel after a window: first who is to be heard, by `draws` of the parent, then what was.

        `before` are the classes that the parent knew.
        """
        sight = self.rows.activations.sight([text for text, _ in members])
        state = panel.founded(sight) if self.panel is None else self.panel
        if self.panel is not None and before:
            state = self._heard(state, sight, members, tasks, draws, before)
        truth = torch.tensor([labels.index(label) for _, label in members])
        state = panel.doubted(state, truth, labels)
        rows = truth if self.heads is None else panel.placed(self.heads, sight, truth)
        return panel.learned(state, sight, rows, classes=len(labels))

    def _heard(
        self,
        state: Panel,
        sight: Sight,
        members: Sequence[Example],
        tasks: Sequence[str],
        draws: Sequence[Sampler],
        before: Sequence[str],
    ) -> Panel:
        chosen = spread_over(len(members), HEARD)
        said = self._said([members[i][0] for i in chosen], [tasks[i] for i in chosen], draws)
        known = dict(zip(before, first_rows(before), strict=True))
        truth = torch.tensor([known.get(members[i][1], panel.UNSEEN) for i in chosen])
        return panel.heard(state, said, sight.of(chosen), truth, before, ready=self.heads)

    def _said(self, texts: Sequence[str], tasks: Sequence[str], draws: Sequence[Sampler]) -> Tensor:
        return log_predictive(self.rows.model, self.rows.activations.of(texts), tasks, draws)
