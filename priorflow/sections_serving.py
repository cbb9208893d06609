"""The section about answers over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, model_validator

from priorflow.quantities import Duration
from priorflow.secret import Secret, held_key
from priorflow.section import Section, Share


class FailureSettings(Section):
    """When `score` stops because the model fails at texts, before it sets aside a whole topic."""

    share: Share = 0.1
    """Largest share of texts that the model failed at among the last `over`."""
    over: int = Field(default=200, ge=1)
    """Number of texts the share is taken over."""
    run: int = Field(default=10, ge=1)
    """Largest number of such texts in a row."""


class ServeSettings(Section):
    """Answers over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes any that is free."""
    api_key: Secret | None = None
    """Key that `/predict` asks for, as `Authorization: Bearer KEY`; open if nothing is said."""
    api_key_file: Path | None = None
    """File that holds the key."""
    decision_key: Secret | None = None
    """Key to promote and roll back over HTTP; no way to if nothing is said, whatever `api_key` is."""
    decision_key_file: Path | None = None
    """File that holds the key to decide."""
    poll: Duration = 500
    """How often the decision log is asked who is champion."""
    draws: int | None = Field(default=None, ge=0)
    """Weight draws behind an answer; those of `learn.draws` if nothing is said."""
    risk: Annotated[float, Field(gt=0, lt=1)] | None = 0.1
    """Share of given answers that may be wrong: what is too unsure for that is withheld; null gives all."""
    risk_alpha: float = Field(default=0.05, gt=0, lt=1)
    """Chance that the threshold was chosen too low by luck."""
    risk_windows: int = Field(default=10, ge=1)
    """Newest windows whose forecasts the threshold is chosen on."""
    max_events: int = Field(default=64, ge=1)
    """Most texts in a request."""
    max_chars: int = Field(default=100_000, ge=1)
    """Most characters of a text; the model reads `model.max_tokens` of it."""
    max_body: ByteSize = ByteSize(1 << 20)
    """Most bytes of a request."""
    max_waiting: int = Field(default=256, ge=1)
    """Most texts in line; beyond it requests are refused with 429."""
    max_wait: Duration = 2_000
    """Longest line, as far as one can tell; beyond it requests are refused with 429."""
    timeout: Duration = 10_000
    """How long a request may take before it is given up, its body included."""

    breaker: FailureSettings = FailureSettings()
    """When the model fails at so many texts that `score` stops."""
    shadow: Literal["candidate"] | Annotated[int, Field(ge=1)] | None = None
    """Who is asked beside the champion and answers nobody: `candidate`, a version's number, or null."""
    shadow_share: Share = 1.0
    """Share of the events, chosen by their id, that the shadow is asked about."""
    shadow_waiting: int = Field(default=256, ge=1)
    """Most texts in the shadow's line; beyond it they are dropped, and counted."""
    shadow_record: ByteSize = ByteSize(8 << 20)
    """Most bytes of the file of comparisons that `serve` keeps; the file before it is kept too."""

    @model_validator(mode="after")
    def _one_key(self) -> ServeSettings:
        if self.api_key is not None and self.api_key_file is not None:
            msg = "api_key and api_key_file are both set; keep one"
            raise ValueError(msg)
        if self.decision_key is not None and self.decision_key_file is not None:
            msg = "decision_key and decision_key_file are both set; keep one"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _room(self) -> ServeSettings:
        if self.max_events > self.max_waiting:
            msg = f"max_events is {self.max_events}, but only {self.max_waiting} texts may wait (max_waiting)"
            raise ValueError(msg)
        return self

    def key(self) -> str | None:
        """Return the key, wherever it is kept; NoSecret if its file holds none."""
        return held_key("serve.api_key_file", self.api_key, self.api_key_file)

    def key_to_decide(self) -> str | None:
        """Return the key with which one may promote and roll back; None: nobody may."""
        return held_key("serve.decision_key_file", self.decision_key, self.decision_key_file)
