"""What a run has to tell: everything the report, the end table and `summary.json` are made from.

Plain values only: whoever reads the ledger and the registry puts them together, whoever shows them
needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from posterior.calibration import ReliabilityBin
from posterior.snapshot import IN_CHARGE, Action, Span
from priorflow.scores import Score

_WINDOW_KEYS: Final = (
    "index",
    "mails",
    "accuracy",
    "nll",
    "ece",
    "kl_nats",
    "beta",
    "drift",
    "snapshot_sha",
    "mlflow_version",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What a window taught: nats by site, how many labelled examples the belief is worth since.

    `by_class` gives mails, and the nats that one cost on average before and after it was learned; `moved`
    the records whose own cost fell most, by their place in the log, with both.
    """

    by_site: Mapping[str, float]
    worth: float
    by_class: Mapping[str, tuple[int, float, float]]
    moved: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRow:
    """One closed window. accuracy, nll and ece are None where no event of it could be foretold.

    `classes` counts its mails by label; `new_classes` are those first seen here; `counts` is the
    accounting at its commit (see `stream.plan.Counts`); `alarms` say what drifted.
    """

    index: int
    mails: int
    accuracy: float | None
    nll: float | None
    ece: float | None
    kl_nats: float
    beta: float
    drift: bool
    snapshot_sha: str
    mlflow_version: int | None
    parent: str
    spans: tuple[Span, ...]
    end_ms: int
    classes: Mapping[str, int]
    new_classes: tuple[str, ...]
    counts: Mapping[str, int]
    kind: Literal["learned", "quarantined"] = "learned"
    alarms: tuple[str, ...] = ()
    taught: Taught | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """How one method did on the same stream; None for what was not, or could not be, measured.

    `prequential_ece` is of all events in one diagram, `prequential_ece_by_window` the mean of the windows'.
    `final_accuracy` and `forgetting` are of events that were learned; nothing is held out.
    """

    prequential_accuracy: float | None
    prequential_nll: float | None
    prequential_ece: float | None
    prequential_ece_by_window: float | None
    final_accuracy: float | None
    forgetting: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A line of the decision log, with the reasons in words."""

    action: Action
    snapshot_sha: str
    window: int | None
    mlflow_version: int | None
    actor: str
    at_ms: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A whole run. `ours` names the method that the windows tell of; the other methods are baselines.

    `curves` gives each method's scores by window index. `matrix[i][j]` is our accuracy on mails of the
    j-th measured window after learning the i-th (see `scores.Matrix`); `matrix_windows` are the indices
    of those measured, all windows if nothing is said. `facts` are lines on how it was run.
    """

    chain: str
    head_sha: str
    seconds: float
    windows: tuple[WindowRow, ...]
    ours: str
    methods: Mapping[str, MethodRow]
    curves: Mapping[str, Mapping[int, Score]]
    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    matrix: tuple[tuple[float | None, ...], ...]
    pi_new: float
    replay_verified: bool
    dead_letters: int
    counts: Mapping[str, int]
    promoted_version: int | None
    decisions: tuple[Verdict, ...]
    tracking_uri: str
    registered_model: str
    ledger_url: str
    facts: Mapping[str, str] = field(default_factory=dict)
    matrix_windows: tuple[int, ...] = ()

    @property
    def measured(self) -> tuple[int, ...]:
        """Return the indices of the windows that the matrix speaks of."""
        return self.matrix_windows or tuple(row.index for row in self.windows)

    @property
    def champion(self) -> Verdict | None:
        """Return the decision that put the present champion in charge."""
        return next((d for d in reversed(self.decisions) if d.action in IN_CHARGE), None)

    def __post_init__(self) -> None:
        """Refuse a story that contradicts itself."""
        if self.ours not in self.methods:
            msg = f"ours is {self.ours!r}, which is none of {', '.join(self.methods)}"
            raise ValueError(msg)
        if set(self.methods) != set(self.curves) or set(self.methods) != set(self.reliability):
            msg = "methods, curves and reliability must speak of the same methods"
            raise ValueError(msg)
        if len(self.matrix) not in {0, len(self.measured)}:
            msg = f"the matrix has {len(self.matrix)} rows for {len(self.measured)} windows"
            raise ValueError(msg)


def summary(story: Story) -> dict[str, Any]:
    """Return what other tools read of a run, as JSON values."""
    return {
        "chain": story.chain,
        "head_sha": story.head_sha,
        "seconds": round(story.seconds, 3),
        "windows": [{key: getattr(row, key) for key in _WINDOW_KEYS} for row in story.windows],
        "methods": {name: asdict(row) for name, row in story.methods.items()},
        "replay_verified": story.replay_verified,
        "dead_letters": story.dead_letters,
        "promoted_version": story.promoted_version,
        "tracking_uri": story.tracking_uri,
        "registered_model": story.registered_model,
        "ledger_url": story.ledger_url,
    }


def summary_json(story: Story) -> str:
    """Return the summary as JSON text; a number that is none is an error, not `NaN`."""
    return json.dumps(summary(story), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
