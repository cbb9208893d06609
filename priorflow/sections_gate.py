"""The section about promotion: the fields of `trainers.bounds.Bounds`, and whether to decide at all."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from priorflow.section import Section, Share

_Level = Annotated[float, Field(gt=0, lt=1)]


class GateSettings(Section):
    """What a candidate must show, on events foretold before they were learned; see docs/promotion.md."""

    enabled: bool = True
    """Whether candidates are judged, and promoted, at all."""
    rollback: bool = True
    """Whether a champion that did worse of late than the one before it is rolled back by itself."""
    alpha: _Level = 0.05
    """Chance that a champion is ever replaced by a policy that was no better, however often one looks."""
    rollback_alpha: _Level = 0.01
    """The same level for a verdict of "worse of late", which acts by itself and so is stricter."""
    clip: float = Field(default=5.0, gt=0)
    """Most nats that one event counts; another value begins the comparison anew."""
    min_gain: float = Field(default=0.0, ge=0)
    """Nats per event by which a candidate's policy must be better than the champion."""
    min_labels: int = Field(default=100, ge=1)
    """Fewest labelled events that count as evidence."""
    guard_alpha: _Level = 0.05
    """Chance that a guard fails what is within its bound, at one look."""
    max_ece: Share = 0.2
    """Largest calibration error."""
    min_recall: Share = 0.1
    """Smallest share of a class that must be found; it is there to notice a class that is lost."""
    min_labels_per_class: int = Field(default=20, ge=1)
    """Fewest labels on which a class is judged; classes with fewer are waited for, unless they are rare."""
    rare: Share = 0.02
    """Share of all labels below which a class is not waited for."""
    max_kl_per_example: float = Field(default=50.0, gt=0)
    """Most nats a window may move the belief, per example; beyond it something is odd."""
    max_p99_ms: Annotated[float, Field(gt=0)] | None = 2_000.0
    """Longest 99th percentile of the time to an answer, in a clean process; `null`: nothing is timed."""
    min_answers: int = Field(default=100, ge=1)
    """Answers that are timed for `max_p99_ms`."""
    smoke: bool = True
    """Whether a candidate that passes all else must load in a clean process and answer; costs seconds."""

    @model_validator(mode="after")
    def _attainable(self) -> GateSettings:
        if self.min_gain >= self.clip:
            msg = f"min_gain is {self.min_gain}; no event counts more than clip, which is {self.clip}"
            raise ValueError(msg)
        return self
