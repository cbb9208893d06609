"""How a published version answers, as it is written beside it; reading it needs no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from posterior.snapshot import Json
from stream.plan import canonical_json
from trainers.abstention import Abstention, Tally, abstention

ANSWERING: Final = "answering.json"
FORMAT: Final = 2  # 1 does not say how many draws: those of the chain's `learn.draws`
ALL: Final = 1.0  # a risk that withholds nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """How a snapshot answers: by so many `draws`, and by a threshold on the newest windows' `confidences`.

    These are added up; a `risk` of 1 withholds nothing.
    """

    snapshot: str
    settings: Json
    encoder: str
    draws: int
    confidences: Tally
    risk: float
    alpha: float

    def rule(self, risk: float, alpha: float) -> Abstention | None:
        """Return when to withhold an answer; None: never. ValueError for what is no risk."""
        return None if risk == ALL else abstention([self.confidences], risk=risk, alpha=alpha)

    def to_bytes(self) -> bytes:
        """Write it down; equal values give equal bytes."""
        return canonical_json({"format": FORMAT, **asdict(self)})
