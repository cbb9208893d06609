"""The tree of snapshots: what stands under what, and that it stays small however long a chain has run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from connectors.blobs import MemoryBlobs
from posterior.snapshot import Snapshot
from priorflow.descent import LEFT, RECENT, Fold, Node, Way, descent, nodes, shas
from priorflow.descent_words import folded, name, offsets, windows
from tests.connectors.chain_builder import learned, plan_on, progress, root
from trainers.branching import OF, SKIPPED, branch_of, rewound_to
from trainers.line import on_top

BLOBS = MemoryBlobs()
GoBack = Callable[[Sequence[Snapshot], int], list[Snapshot]]


def grown(rows: Sequence[Snapshot], count: int) -> list[Snapshot]:
    """Learn so many windows more."""
    made = list(rows) or [root(BLOBS)]
    for _ in range(count):
        row = learned(BLOBS, made[-1], plan_on(made[-1]))
        made.append(replace(row, labels=made[-1].labels or row.labels))
    return made


def from_belief(rows: Sequence[Snapshot], at: int) -> list[Snapshot]:
    return [*rows, branch_of(rows[-1], rows[at], rows, "a decision")]


def from_position(rows: Sequence[Snapshot], at: int) -> list[Snapshot]:
    return [*rows, rewound_to(rows[at], rows[-1], rows, "a decision")]


def tree(rows: Sequence[Snapshot], *wanted: Snapshot) -> tuple[Way, ...]:
    return descent(rows, head=rows[-1].sha, wanted=[row.sha for row in wanted])


def drawn(ways: Sequence[Way]) -> str:
    """Draw a tree on a line: (folded windows), {what left a snapshot}, and +n that are not shown."""
    return " | ".join(" ".join(map(_step, way)) for way in ways)


def _step(step: Node | Fold) -> str:
    more = f"+{step.unseen}" if step.unseen else ""
    if isinstance(step, Fold):
        return f"({step.first}-{step.last}{more})"
    said = str(step.row.index) if step.row.kind == "learned" else step.row.kind
    return said + more + "".join(f"{{{drawn([way])}}}" for way in step.ways)


def test_a_line_is_a_line_whoever_answers() -> None:
    rows = grown([], 3)
    assert drawn(tree(rows)) == drawn(tree(rows, rows[1])) == "root 1 2 3"


@pytest.mark.parametrize("back", [from_belief, from_position])
def test_what_learning_went_back_from_is_set_in(back: GoBack) -> None:
    rows = grown(back(grown([], 3), 1), 2)
    assert drawn(tree(rows)) == "root 1{2 3} branch 4 5"


def test_who_goes_back_to_what_was_left_has_the_trunk_there() -> None:
    rows = grown(from_position(grown([], 3), 1), 1)
    again = grown(from_position(rows, 3), 1)
    assert drawn(tree(again)) == "root 1{branch 4} 2 3 branch 5"


def test_a_chain_that_was_derived_leaves_the_one_that_it_came_of() -> None:
    rows = grown([], 3)
    first = replace(rows[1], chain="clean", seq=0, kind="branch", parent=rows[1].sha, plan=None, report={})
    other = grown([first], 2)
    both = [*rows, *other]
    assert drawn(descent(both, head=rows[-1].sha)) == "root 1{branch 2 3} 2 3"
    assert drawn(descent(both, head=other[-1].sha)) == "root 1{2 3} branch 2 3"


def test_rows_that_only_move_on_are_passed_through_but_for_the_head() -> None:
    rows = grown([], 1)
    rows = grown([*rows, progress(BLOBS, rows[-1])], 1)
    assert drawn(tree(rows)) == "root 1 2"
    assert drawn(tree([*rows, progress(BLOBS, rows[-1])])) == "root 1 2 progress"


def test_long_runs_are_counted_and_who_matters_is_shown() -> None:
    rows = grown([], 300)
    recent = " ".join(map(str, range(301 - RECENT, 301)))
    assert drawn(tree(rows)) == f"root (1-292) {recent}"
    assert drawn(tree(rows, rows[100])) == f"root (1-99) 100 (101-292) {recent}"


def test_a_fold_covers_the_records_between_its_neighbours() -> None:
    rows = grown([], 40)
    rows[7] = replace(rows[7], report={**rows[7].report, "drift": True})
    rows[8] = replace(rows[8], kind="quarantined", parent=rows[7].sha)
    before, fold, after = tree(relinked(rows))[0][:3]
    assert isinstance(before, Node)
    assert isinstance(fold, Fold)
    assert isinstance(after, Node)
    assert (fold.before, fold.after) == (before.row.spans, after.row.spans_before)
    assert (fold.windows, fold.quarantined, fold.drifted) == (40 - RECENT, 1, 1)
    assert folded(fold) == "32 windows folded (1\N{EN DASH}32), 1 quarantined, drift in 1"


def relinked(rows: Sequence[Snapshot]) -> list[Snapshot]:
    """Have every row name its parent again."""
    made = [rows[0]]
    for row in rows[1:]:
        made.append(replace(row, parent=made[-1].sha))
    return made


def test_the_newest_that_were_left_are_shown_and_the_others_counted() -> None:
    rows = grown([], 1)
    for _ in range(LEFT + 3):
        rows = grown(again_from(rows, 1), 1)
    (_, one, *trunk) = tree(rows)[0]
    assert isinstance(one, Node)
    assert one.unseen == 2
    assert [drawn([way]) for way in one.ways] == [f"branch {n}" for n in range(4, LEFT + 4)]
    assert drawn([tuple(trunk)]) == f"branch {LEFT + 4}"


def again_from(rows: Sequence[Snapshot], at: int) -> list[Snapshot]:
    report = {OF: rows[at].sha, SKIPPED: []}
    return [*rows, on_top(rows[-1], "branch", posterior=rows[at].posterior, report=report)]


def test_it_stays_small_and_forgets_no_window() -> None:
    rows = grown([], 20)
    for turn in range(60):
        rows = grown(again_from(rows, max(1, len(rows) - 3 - turn % 17)), 12)
    champion = rows[333]
    ways = tree(rows, champion)
    assert sum(1 for _ in steps(ways)) <= 60
    assert champion.sha in {node.sha for node in nodes(ways)}
    whole = sum(step.row.kind == "learned" for step in ways[0] if isinstance(step, Node))
    counted = sum(step.windows for step in ways[0] if isinstance(step, Fold))
    assert whole + counted == sum(row.kind == "learned" for row in upwards(rows))


def steps(ways: Sequence[Way]) -> Iterator[Node | Fold]:
    for way in ways:
        for step in way:
            yield step
            yield from steps(step.ways) if isinstance(step, Node) else ()


def upwards(rows: Sequence[Snapshot]) -> list[Snapshot]:
    """Return the rows from the head up, each the one whose belief the last began with."""
    known, line = {row.sha: row for row in rows}, [rows[-1]]
    while (up := line[-1].report.get(OF) or line[-1].parent) is not None:
        line.append(known[up])
    return line


def test_shas_are_those_of_the_rows() -> None:
    rows = grown([], 3)
    other = [replace(row, chain="other") for row in rows[:1]]
    assert shas([*rows, *other]) == [row.sha for row in [*rows, *other]]


def test_words() -> None:
    assert windows([3]) == "window 3"
    assert windows([3, 4, 5, 9]) == "windows 3\N{EN DASH}5, 9"
    rows = grown([], 3)
    assert name(rows[2]) == "window 2"
    skipped, again = from_belief(rows, 1)[-1], from_position(rows, 1)[-1]
    assert name(skipped) == f"learning goes on from {rows[1].sha[:12]}, without windows 2\N{EN DASH}3"
    assert name(again) == f"learning goes back to {rows[1].sha[:12]} and reads windows 2\N{EN DASH}3 again"


def test_offsets_are_those_of_the_records_in_between() -> None:
    rows = grown([], 2)
    (events, labels) = offsets(rows[2].spans_before, rows[2].spans)
    assert (events.topic, events.records, events.places) == ("events", 4, ("0: 4\N{EN DASH}7",))
    assert (labels.topic, labels.places) == ("labels", ("0: 4\N{EN DASH}7",))
    moved = replace(rows[2].spans[0], low=5, beyond=(7, 9))
    assert offsets(rows[1].spans, [moved])[0].places == ("0: 4 +2",)
    assert offsets(rows[2].spans, [replace(moved, beyond=())])[0].places == ("0: back to 5",)
    assert offsets(rows[2].spans, rows[2].spans) == ()
