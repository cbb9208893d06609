"""The sentences of a report: what each figure shows, said from the numbers themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Final

from posterior.calibration import ReliabilityBin
from posterior.snapshot import Action, Span
from priorflow.report_axes import day, percent
from priorflow.story import MethodRow, Story, Taught, Verdict

_FEW: Final = 3  # classes or records that a line of the table names
NONE: Final = "\N{EN DASH}"
_DECIDED: Final[Mapping[Action, str]] = {
    "promote": "Promoted",
    "rollback": "Rolled back to",
    "refuse": "Refused",
    "wait": "Waits with",
}
_MEANINGS: Final = {
    "learned": "in a window that a posterior has learned",
    "pending": "waiting for the other half, or for the window to fill",
    "late": "behind its partition's watermark and set aside",
    "duplicate": "said before, or said again",
    "dead_lettered": "not usable; kept whole in the dead-letter topic",
    "expired": "gave up waiting for the other half",
    "quarantined": "in a window that could not be learned",
    "erased": "erased, or left out: nothing is kept of what it said",
}


def opening(story: Story) -> list[str]:
    """Return the paragraphs that a reader in a hurry needs."""
    ours, rows = story.methods[story.ours], story.windows
    learned = sum(row.mails for row in rows if row.kind == "learned")
    said = (
        f"{story.ours} learned {learned:,} mails in {_plural(len(rows), 'window')} of the stream, "
        f"up to {day(rows[-1].end_ms)}."
    )
    if None in (ours.prequential_accuracy, ours.prequential_nll, ours.prequential_ece):
        return [f"{said} Nothing was known before them, so no mail could be predicted yet."]
    foretold = sum(made.count for made in story.curves[story.ours].values())
    result = (
        f"Each was predicted before it was learned, unless it arrived before any class was known; on "
        f"the {foretold:,} that could be, the right class was named "
        f"{share(ours.prequential_accuracy)} of the time, at a cost of "
        f"{figure(ours.prequential_nll)} nats a mail, and stated confidence was off by "
        f"{points(ours.prequential_ece)} over all of them and by "
        f"{points(ours.prequential_ece_by_window)} within a window, on average."
    )
    others = {name: row for name, row in story.methods.items() if name != story.ours}
    against = "; ".join(
        _against(story.ours, ours, name, row)
        for name, row in others.items()
        if row.prequential_accuracy is not None
    )
    first = f"{said} {result}"
    return [first, f"On the same mails and by the same rules, {against}."] if against else [first]


def accuracy_caption(story: Story) -> str:
    """Say where accuracy was lowest, what was new there, and how finely to read it."""
    scored = [row for row in story.windows if row.accuracy is not None]
    if not scored:
        return "No window could be foretold yet."
    worst = min(scored, key=lambda row: row.accuracy or 0.0)
    low = worst.accuracy or 0.0
    wobble = sqrt(max(low * (1 - low), 0.01) / worst.mails)
    said = (
        f"Share of mails whose class was named before it was learned. {story.ours} was lowest in "
        f"window {worst.index} ({percent(low)}; give or take {points(wobble)} by chance)"
    )
    if worst.new_classes:
        fresh = sum(worst.classes.get(label, 0) for label in worst.new_classes)
        return (
            f"{said}, where {fresh} of {worst.mails} mails belonged to "
            f"{_plural(len(worst.new_classes), 'class', 'classes')} that no window had shown before."
        )
    return f"{said}."


def nll_caption(story: Story) -> str:
    """Say what a nat costs and what guessing would cost."""
    return (
        "How surprised each method was by the truth, in nats per mail; lower is better. Being right "
        "and sure costs little, being wrong and sure costs much. For a class that nobody had seen, a "
        f"method that says nothing of new classes keeps {story.pi_new:g} of all probability."
    )


def ece_caption(story: Story) -> str:
    """Say what a calibration error is and where ours was largest."""
    scored = [row for row in story.windows if row.ece is not None]
    if not scored:
        return "No window could be foretold yet."
    worst = max(scored, key=lambda row: row.ece or 0.0)
    return (
        "How far stated confidence and the share of hits lie apart, window by window; 0 is honest. All "
        "windows in one diagram, as below, show less of it: too sure here and too modest there cancel. "
        f"{story.ours} was furthest off in window {worst.index} ({worst.ece:.3f})."
    )


def reliability_caption(story: Story) -> str:
    """Say how to read the diagram, and on which side of honesty each method lies."""
    said = (
        "On the dashed line, 80% sure means right four times in five. Below it a method is surer "
        "than it should be, above it too modest. Larger marks hold more mails."
    )
    sides = "; ".join(_side(name, bins) for name, bins in story.reliability.items() if bins)
    return f"{said} On average {sides}." if sides else said


def class_caption(story: Story) -> str:
    """Say when classes were first seen."""
    first = [row for row in story.windows if row.new_classes]
    later = [row for row in first if row is not story.windows[0]]
    said = "Mails per class and window. A ring marks the first mails of a class, which nobody can name."
    if not later:
        return said
    last = later[-1]
    return (
        f"{said} New classes came in {_plural(len(later), 'window')} after the first; the last to "
        f"appear was {_list(last.new_classes)}, in window {last.index}."
    )


def matrix_caption(story: Story) -> str:
    """Say how to read the matrix, and what was forgotten."""
    said = (
        "Each row was measured after learning one more window, with the posterior mean on a sample of "
        "the mails that were learned in every earlier one; a column that fades on its way down is being "
        "forgotten."
    )
    lost = story.methods[story.ours].forgetting
    if lost is None:
        return said
    if lost < 0:
        return f"{said} At the end, earlier windows were on average {points(-lost)} better than ever before."
    return f"{said} At the end, earlier windows lay on average {points(lost)} below their best."


def movement_caption(story: Story) -> str:
    """Say what moved the belief most, what beta means, and where drift was flagged."""
    most = max(story.windows, key=lambda row: row.kl_nats)
    alarms = [str(row.index) for row in story.windows if row.drift]
    drift = (
        f"Drift was flagged in {'window' if len(alarms) == 1 else 'windows'} {_list(alarms)} (shaded)."
        if alarms
        else "No drift was flagged."
    )
    return (
        f"How far each window moved the belief away from its prior. Window {most.index} moved it "
        f"most, by {most.kl_nats:,.0f} nats. Beta is the share of yesterday's evidence that was kept; "
        f"1 is Bayes without forgetting, and a darker field forgets more. {drift}"
    )


def site_caption(story: Story) -> str:
    """Say how to read what sites were taught, and which was taught most."""
    totals: dict[str, float] = {}
    for row in story.windows:
        for site, nats in row.taught.by_site.items() if row.taught else ():
            totals[site] = totals.get(site, 0.0) + nats
    said = (
        "KL of each site's own weights to what was believed before the window, in nats; a column adds up to "
        "how far the window moved the belief. A row between sites is there where one belief is about all of "
        "them: what it has beyond them, below 0 where sites moved as they were tied."
    )
    most = max(totals, key=lambda site: totals[site], default="")
    return f"{said} {most} was taught most, {totals[most]:,.0f} nats." if most else said


def lessons_by_class(taught: Taught) -> str:
    """Say what a mail of the classes that were taught most cost before and after, on average."""
    gains = sorted(
        taught.by_class.items(), key=lambda item: (-item[1][0] * (item[1][1] - item[1][2]), item[0])
    )
    return "; ".join(
        f"{label} ({count:,}) {before:.2f} → {after:.2f}" for label, (count, before, after) in gains[:_FEW]
    )


def lessons_by_record(taught: Taught) -> str:
    """Say which records' own cost fell most."""
    return "; ".join(f"{place} {before:.2f} → {after:.2f}" for place, before, after in taught.moved[:_FEW])


def accounting_lines(counts: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Return name, number and meaning of everything a consumed record can become."""
    return [(name.replace("_", " "), count, _MEANINGS.get(name, "")) for name, count in accounts(counts)]


def accounts(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return what consumed records became, learned first: colours go by place, and a row sorts its counts."""
    places = {name: place for place, name in enumerate(_MEANINGS)}
    named = [(name, count) for name, count in counts.items() if name != "consumed"]
    return sorted(named, key=lambda account: places.get(account[0], len(places)))


def accounting_verdict(counts: Mapping[str, int]) -> str:
    """Say whether the accounting balances."""
    consumed = counts.get("consumed", 0)
    whole = sum(count for name, count in counts.items() if name != "consumed")
    if whole == consumed:
        return f"{consumed:,} records were consumed and {whole:,} are accounted for: none is missing."
    return f"{consumed:,} records were consumed but {whole:,} are accounted for. This must not be."


def positions(spans: Iterable[Span]) -> list[tuple[str, str]]:
    """Return, for each topic, the next offset of each partition; `+n` were released ahead of it."""
    topics: dict[str, list[str]] = {}
    for span in sorted(spans):
        ahead = f" +{len(span.beyond)}" if span.beyond else ""
        topics.setdefault(span.topic, []).append(f"{span.low:,}{ahead}")
    return [(topic, " · ".join(lows)) for topic, lows in topics.items()]


def verdict(made: Verdict) -> str:
    """Return what was decided, as the beginning of a line."""
    what = _DECIDED[made.action]
    version = f"version {made.mlflow_version}" if made.mlflow_version is not None else "a candidate"
    return f"{what} {version}"


def share(value: float | None) -> str:
    """Write a share, or a dash for none."""
    return NONE if value is None else percent(value)


def figure(value: float | None, digits: int = 2) -> str:
    """Write a number, or a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def points(value: float | None) -> str:
    """Write a difference of shares in percentage points, or a dash for none."""
    return NONE if value is None else f"{100 * value:.1f} points"


def _against(name: str, ours: MethodRow, other_name: str, other: MethodRow) -> str:
    """Compare as far as the printed digits go; what is equal there is called equal."""
    gap = round((other.prequential_accuracy or 0) - (ours.prequential_accuracy or 0), 3)
    nats = round((other.prequential_nll or 0) - (ours.prequential_nll or 0), 2)
    right = f"{points(abs(gap))} {'more' if gap > 0 else 'less'} often than" if gap else "as often as"
    paid = f"{abs(nats):.2f} nats a mail {'more' if nats > 0 else 'less'}" if nats else "the same"
    return f"{other_name} was right {right} {name} and paid {paid}"


def _side(name: str, bins: Sequence[ReliabilityBin]) -> str:
    count = sum(b.count for b in bins)
    sure = sum(b.count * b.confidence for b in bins) / count
    right = sum(b.count * b.accuracy for b in bins) / count
    return f"{name} was {percent(sure)} sure and {percent(right)} right"


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
