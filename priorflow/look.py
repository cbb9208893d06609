"""What the page shows of a chain, read from the ledger at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.decision_log import champion, fallback
from posterior.calibration import ReliabilityBin
from posterior.snapshot import Decision, Snapshot
from priorflow.case import newest_candidate
from priorflow.cluster import ends_if_reachable
from priorflow.config import Settings
from priorflow.deciding import GATES
from priorflow.descent import Way, descent, nodes
from priorflow.kinship import Derived, kin
from priorflow.opening import MLFLOW, reading
from priorflow.status import standing
from priorflow.story import MethodRow, Story, WindowRow
from priorflow.story_ledger import scores, verdicts, window_rows
from trainers.abstention import CONFIDENCES, STEPS
from trainers.line import in_force

SHOWN: Final = 200  # windows in the figures
LISTED: Final = 25  # decisions
_OURS: Final = "priorflow"
_BINS: Final = 20
_NONE: Final = MethodRow(
    prequential_accuracy=None,
    prequential_nll=None,
    prequential_ece=None,
    prequential_ece_by_window=None,
    final_accuracy=None,
    forgetting=None,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was read of a chain at once: `place` as `priorflow status` has it, and its story.

    `gates` are what the gates said of each of the story's decisions; `lineage` is the tree of snapshots, and
    `windows` what is told of those in it that closed one, by sha; `derived` are all chains derived from this
    one, newest first; `candidate` is what a promotion would be about, `back` where a rollback would go.
    """

    place: Mapping[str, Any]
    story: Story | None
    gates: tuple[Sequence[Mapping[str, Any]], ...] = ()
    lineage: tuple[Way, ...] = ()
    derived: Sequence[Derived] = ()
    windows: Mapping[str, WindowRow] = field(default_factory=dict)
    candidate: str | None = None
    back: str | None = None


def look(settings: Settings, *, ask_kafka: bool = True) -> Look | None:
    """Read the ledger; None where the chain has no snapshot yet, LedgerError where there is no ledger."""
    ends = ends_if_reachable(settings) if ask_kafka else None
    with reading(settings, read_only=True) as (ledger, _):
        name = settings.chain.name
        chain = ledger.chain(name)
        history = ledger.history(name) if chain is not None else ()
        if chain is None or not history:
            return None

        def version_of(sha: str) -> int | None:
            number = ledger.reference(sha, MLFLOW)
            return None if number is None else int(number)

        told = settings.decisions.webhook is not None
        place = standing(ledger, name, history, ends, webhook=told)
        line = in_force(history, history[-1])
        shown = _newest(line)
        log = ledger.decisions(name)
        decided = verdicts(log[-LISTED:], history, version_of)
        rows = window_rows(shown, version_of)
        seen = tuple(filter(None, (champion(log), fallback(log), _candidate(log))))
        related = kin(ledger, chain, history)
        tree = descent(related.rows, head=history[-1].sha, wanted=seen)
        told_of = window_rows([node.row for node in nodes(tree)], version_of)
    if not rows:
        return Look(place=place, story=None)
    story = Story(
        chain=name,
        head_sha=history[-1].sha,
        seconds=0.0,
        windows=rows,
        ours=_OURS,
        methods={_OURS: _NONE},
        curves={_OURS: scores(shown)},
        reliability={_OURS: reliability(shown)},
        matrix=(),
        pi_new=settings.learn.pi_new,
        replay_verified=False,
        dead_letters=history[-1].counts["dead_lettered"],
        counts=history[-1].counts,
        promoted_version=None,
        decisions=decided,
        tracking_uri=settings.tracking_uri,
        registered_model=settings.mlflow.registered_model,
        ledger_url=settings.ledger_url,
    )
    return Look(
        place=place,
        story=story,
        gates=tuple(line.evidence.get(GATES, ()) for line in log[-LISTED:]),
        lineage=tree,
        derived=related.derived,
        windows={row.snapshot_sha: row for row in told_of},
        candidate=_candidate(log),
        back=fallback(log),
    )


def _candidate(log: Sequence[Decision]) -> str | None:
    """Return what the gates judged last, if it is not in charge already."""
    sha = newest_candidate(log)
    return None if sha == champion(log) else sha


def reliability(windows: Sequence[Snapshot]) -> tuple[ReliabilityBin, ...]:
    """Return the reliability diagram of these windows' forecasts, which reports count by hundredths."""
    count, right, said = Counter[int](), Counter[int](), Counter[int]()
    for row in (row for window in windows for row in window.report.get(CONFIDENCES, ())):
        at = min(row[0] * _BINS // STEPS, _BINS - 1)
        count[at] += row[1]
        right[at] += row[2]
        said[at] += row[1] * (2 * row[0] + 1)  # the middle of a hundredth, in halves of one
    return tuple(
        ReliabilityBin(at / _BINS, (at + 1) / _BINS, n, min(1.0, said[at] / n / (2 * STEPS)), right[at] / n)
        for at, n in sorted(count.items())
    )


def _newest(history: Sequence[Snapshot]) -> Sequence[Snapshot]:
    """Return the last windows."""
    return [row for row in history if row.kind in {"learned", "quarantined"}][-SHOWN:]
