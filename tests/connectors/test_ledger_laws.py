"""One contract for every ledger: memory, SQLite, PostgreSQL."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.blobs import MemoryBlobs
from connectors.decision_log import champion, previous
from connectors.ledger import open_ledger
from connectors.memory_ledger import MemoryLedger
from posterior.snapshot import (
    NAMES,
    REWOUND,
    Decision,
    Fenced,
    LeaseHeld,
    Ledger,
    LedgerCorrupt,
    LedgerError,
    LogMoved,
    Snapshot,
    Span,
)
from tests.connectors import real_postgres
from tests.connectors.chain_builder import (
    CIRCUMSTANCE,
    OWNER,
    Writer,
    a_chain,
    learned,
    plan_on,
    progress,
    root,
)


class Died(Exception):
    """The process would have died here."""


@dataclass
class Deadly:
    """A crash hook that strikes at one step, once."""

    at: str = ""

    def __call__(self, step: str) -> None:
        if step == self.at:
            self.at = ""
            raise Died(step)


@dataclass
class Store:
    """An empty ledger, its blobs, and the means to open it again as another process would."""

    blobs: MemoryBlobs
    crash: Deadly
    open: Callable[[], Ledger]
    opened: list[Ledger] = field(default_factory=list)

    def ledger(self) -> Ledger:
        self.opened.append(self.open())
        return self.opened[-1]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL server on a local socket."""
    with real_postgres.running(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    blobs, crash = MemoryBlobs(), Deadly()
    if request.param == "memory":
        only = MemoryLedger(blobs, crash=crash)
        made = Store(blobs, crash, lambda: only)
    else:
        url = f"sqlite:///{tmp_path}/ledger.db"
        if request.param == "postgresql":
            url = real_postgres.new_schema(request.getfixturevalue("postgres"))
        made = Store(blobs, crash, lambda: open_ledger(url, blobs, crash=crash))
    yield made
    for ledger in made.opened:
        ledger.close()


@pytest.fixture
def writer(store: Store) -> Writer:
    return Writer.on_new_chain(store.ledger(), store.blobs)


def taken_over(store: Store, writer: Writer) -> Writer:
    """A second process that takes the chain while the first still believes it holds it."""
    ledger = store.ledger()
    fence = ledger.acquire("main", owner="second/2/p/2", ttl_s=60, takeover=True)
    return Writer(ledger, store.blobs, fence, writer.head)


class TestChains:
    def test_created_again_is_the_same(self, store: Store) -> None:
        ledger = store.ledger()
        ledger.create(a_chain())
        ledger.create(a_chain())
        ledger.create(a_chain("another"))
        assert ledger.chain("main") == a_chain()
        assert ledger.chain("none") is None
        assert [chain.name for chain in ledger.chains()] == ["another", "main"]

    @pytest.mark.parametrize(
        "other",
        [
            a_chain(seed=8),
            a_chain(origin="0" * 64),
            replace(a_chain(), settings={"window": 5}),
        ],
    )
    def test_created_otherwise_is_refused(self, store: Store, other: Any) -> None:
        ledger = store.ledger()
        ledger.create(a_chain())
        with pytest.raises(LedgerError, match="exists with another"):
            ledger.create(other)
        assert ledger.chain("main") == a_chain()

    def test_unknown_chain_cannot_be_taken(self, store: Store) -> None:
        with pytest.raises(LedgerError, match="no chain nowhere"):
            store.ledger().acquire("nowhere", owner=OWNER, ttl_s=1)

    def test_empty_chain_has_no_head(self, store: Store) -> None:
        ledger = store.ledger()
        ledger.create(a_chain())
        assert ledger.head("main") is None
        assert list(ledger.history("main")) == []
        assert ledger.open_plan("main") is None


class TestCommit:
    def test_what_went_in_comes_out(self, store: Store, writer: Writer) -> None:
        rows = [writer.head, writer.learn(), writer.learn()]
        rows.append(writer.commit(progress(store.blobs, writer.head)))
        again = store.ledger()
        assert again.head("main") == rows[-1]
        assert list(again.history("main")) == rows
        for row in rows:
            assert again.snapshot(row.sha) == (row, CIRCUMSTANCE)
            assert again.snapshot(row.sha[:12]) == (row, CIRCUMSTANCE)
        assert again.snapshot("f" * 64) is None

    def test_names_are_checked(self, writer: Writer) -> None:
        with pytest.raises(LedgerError, match="too short"):
            writer.ledger.snapshot(writer.head.sha[:5])
        assert writer.ledger.snapshot("%%%%%%") is None

    def test_the_same_call_again_changes_nothing(self, store: Store, writer: Writer) -> None:
        plan = writer.begin()
        row = learned(store.blobs, writer.head, plan)
        writer.ledger.begin(writer.fence, plan)
        for _ in range(2):
            writer.commit(row, publish=("mlflow",))
        assert len(writer.ledger.history("main")) == 2
        assert len(writer.ledger.backlog("mlflow")) == 1
        assert writer.ledger.open_plan("main") is None

    def test_quarantine_keeps_the_tensors(self, store: Store, writer: Writer) -> None:
        plan = writer.begin()
        bad = learned(store.blobs, writer.head, plan)
        counts = {**bad.counts, "learned": 0, "quarantined": bad.counts["learned"]}
        bad = replace(bad, kind="quarantined", counts=counts)
        with pytest.raises(LedgerCorrupt, match="posterior is not its parent's"):
            writer.commit(bad)
        writer.commit(replace(bad, posterior=writer.head.posterior))
        assert writer.ledger.open_plan("main") is None

    def test_a_branch_stands_on_another_chain(self, store: Store, writer: Writer) -> None:
        origin = writer.learn()
        ledger = store.ledger()
        ledger.create(a_chain("what-if", origin=origin.sha))
        fence = ledger.acquire("what-if", owner=OWNER, ttl_s=60)
        first = replace(
            origin,
            chain="what-if",
            seq=0,
            kind="branch",
            parent=origin.sha,
            plan=None,
            spans_before=origin.spans,
            settings="other",
        )
        with pytest.raises(LedgerCorrupt, match="not its parent's last"):
            ledger.commit(fence, replace(first, spans_before=()), CIRCUMSTANCE)
        ledger.commit(fence, first, CIRCUMSTANCE)
        assert ledger.head("what-if") == first
        assert ledger.head("main") == origin

    def test_a_branch_of_nothing_is_refused(self, store: Store) -> None:
        ledger = store.ledger()
        ledger.create(a_chain("what-if", origin="a" * 64))
        fence = ledger.acquire("what-if", owner=OWNER, ttl_s=60)
        first = replace(root(store.blobs, "what-if"), kind="branch", parent="a" * 64)
        with pytest.raises(LedgerCorrupt, match="its parent is"):
            ledger.commit(fence, first, CIRCUMSTANCE)


def moved(row: Snapshot, **change: Any) -> Snapshot:
    """The row with its first partition's positions changed."""
    return replace(row, spans=(replace(row.spans[0], **change), *row.spans[1:]))


SPOILT: dict[str, tuple[Callable[[Snapshot], Snapshot], str]] = {
    "another chain": (lambda r: replace(r, chain="x"), "committed to chain main"),
    "another parent": (lambda r: replace(r, parent="0" * 64), "its parent is"),
    "no parent": (lambda r: replace(r, parent=None), "its parent is"),
    "second root": (lambda r: replace(r, kind="root"), "has one root"),
    "row left out": (lambda r: replace(r, seq=r.seq + 1), "follows row"),
    "window left out": (lambda r: replace(r, index=r.index + 1), "window index"),
    "window told twice": (lambda r: replace(r, index=r.index - 1), "window index"),
    "no plan": (lambda r: replace(r, plan=None), "without a plan"),
    "other plan": (lambda r: replace(r, plan="0" * 64), "the open plan is"),
    "progress while a plan is open": (
        lambda r: replace(r, kind="progress", index=r.index - 1, plan=None),
        "posterior is not|open plan",
    ),
    "other settings": (lambda r: replace(r, settings="0"), "settings"),
    "label map reordered": (lambda r: replace(r, labels=("new", *r.labels)), "label map"),
    "gap": (lambda r: replace(r, spans_before=r.spans), "a gap or an overlap"),
    "backwards": (lambda r: moved(r, low=0), "moved back"),
    "partition lost": (lambda r: replace(r, spans=r.spans[1:]), "vanished"),
    "partition twice": (lambda r: replace(r, spans=(*r.spans, r.spans[0])), "twice"),
    "watermark falls": (lambda r: moved(r, watermark_ms=1), "watermark"),
    "watermark forgotten": (lambda r: moved(r, watermark_ms=None), "watermark"),
    "beyond below low": (lambda r: moved(r, beyond=(2,)), "not in order"),
    "beyond unordered": (lambda r: moved(r, beyond=(90, 80)), "not in order"),
    "more records than offsets": (lambda r: moved(r, consumed=100), "consumed over"),
    "fewer records than before": (lambda r: moved(r, consumed=1), "consumed over"),
    "record lost": (
        lambda r: replace(r, counts={**r.counts, "learned": r.counts["learned"] - 1}),
        "unaccounted",
    ),
    "record invented": (
        lambda r: replace(
            r,
            counts={
                **r.counts,
                "consumed": r.counts["consumed"] + 1,
                "late": r.counts["late"] + 1,
            },
        ),
        "its positions",
    ),
    "negative count": (
        lambda r: replace(r, counts={**r.counts, "late": -1, "learned": r.counts["learned"] + 1}),
        "negative",
    ),
    "unknown count": (lambda r: replace(r, counts={**r.counts, "lost": 0}), "cannot be read"),
    "posterior not stored": (lambda r: replace(r, posterior="0" * 64), "missing"),
    "state not stored": (lambda r: replace(r, stream_state="0" * 64), "missing"),
}


class TestAdmission:
    def test_a_spoilt_row_is_refused_whole(
        self, store: Store, writer: Writer, subtests: pytest.Subtests
    ) -> None:
        before = writer.learn()
        plan = writer.begin()
        good = learned(store.blobs, before, plan)
        again = store.ledger()
        for how, (spoil, message) in SPOILT.items():
            with subtests.test(how):
                with pytest.raises(LedgerCorrupt, match=message):
                    writer.ledger.commit(writer.fence, spoil(good), CIRCUMSTANCE, publish=("mlflow",))
                assert again.head("main") == before
                assert again.open_plan("main") == plan
                assert again.backlog("mlflow") == []
        writer.commit(good)  # and nothing stands in the way of the right one

    def test_a_branch_may_go_back_to_a_row_of_its_chain_and_is_that_row(
        self, store: Store, writer: Writer, subtests: pytest.Subtests
    ) -> None:
        past = writer.learn()
        head = writer.learn()
        good = replace(
            past,
            seq=head.seq + 1,
            index=head.index,
            kind="branch",
            parent=head.sha,
            plan=None,
            spans_before=head.spans,
            report={REWOUND: past.sha},
        )
        stranger = Writer.on_new_chain(writer.ledger, store.blobs, "other").learn()
        spoilt = {
            "number of its own": replace(good, index=past.index),
            "other tensors": replace(good, posterior=head.posterior),
            "other positions": replace(good, spans=head.spans),
            "other accounts": replace(good, counts=head.counts),
            "other classes": replace(good, labels=head.labels),
            "names it does not bear": replace(good, report={REWOUND: past.sha, NAMES: {past.labels[0]: "x"}}),
            "a gap": replace(good, spans_before=past.spans),
            "nowhere": replace(good, report={REWOUND: "0" * 64}),
            "another chain": replace(good, report={REWOUND: stranger.sha}),
            "in silence": replace(good, report={}),
            "no branch": replace(good, kind="progress"),
        }
        said = "goes back to|moved back|a gap or|window index|posterior is not"
        for how, row in spoilt.items():
            with subtests.test(how), pytest.raises(LedgerCorrupt, match=said):
                writer.ledger.commit(writer.fence, row, CIRCUMSTANCE)
        assert store.ledger().head("main") == head
        writer.commit(good)
        after = writer.learn()
        assert after.spans_before == past.spans
        assert [row.sha for row in store.ledger().history("main")][-2:] == [good.sha, after.sha]

    def test_the_first_row_is_a_root(self, store: Store) -> None:
        ledger = store.ledger()
        ledger.create(a_chain())
        fence = ledger.acquire("main", owner=OWNER, ttl_s=60)
        first = root(store.blobs)
        with pytest.raises(LedgerCorrupt):
            ledger.commit(fence, progress(store.blobs, first), CIRCUMSTANCE)
        with pytest.raises(LedgerCorrupt, match="origin"):
            ledger.commit(fence, replace(first, parent="0" * 64), CIRCUMSTANCE)
        ledger.commit(fence, first, CIRCUMSTANCE)

    def test_released_out_of_order_is_not_forgotten(self, store: Store, writer: Writer) -> None:
        """Offset 9 was released early; a later row may pass it, but not unlearn it."""
        early = replace(progress(store.blobs, writer.head, records=3), labels=())
        early = moved(early, low=2, beyond=(9,))
        writer.commit(early)
        ahead = progress(store.blobs, early, records=3)
        with pytest.raises(LedgerCorrupt, match="moved back"):
            writer.commit(moved(ahead, low=5, beyond=()))
        with pytest.raises(LedgerCorrupt, match="consumed over 2 offsets"):
            writer.commit(moved(ahead, low=4, beyond=(9,)))
        writer.commit(moved(ahead, low=5, beyond=(9,)))
        writer.commit(moved(progress(store.blobs, writer.head, records=3), low=10, beyond=()))

    def test_holes_are_legitimate(self, store: Store, writer: Writer) -> None:
        """Compaction and transaction markers: many offsets, few records."""
        writer.commit(moved(progress(store.blobs, writer.head, records=3), low=5_000))


class TestPlans:
    def test_one_at_a_time(self, writer: Writer) -> None:
        first = writer.begin("a")
        assert writer.ledger.open_plan("main") == first
        with pytest.raises(LedgerCorrupt, match="still open"):
            writer.begin("b")
        writer.ledger.supersede(writer.fence, first.sha, "other threads")
        writer.ledger.supersede(writer.fence, first.sha, "other threads")
        assert writer.ledger.open_plan("main") is None
        second = writer.begin("b")
        assert writer.ledger.open_plan("main") == second

    def test_the_same_plan_may_return_after_it_was_superseded(self, writer: Writer) -> None:
        plan = writer.begin()
        writer.ledger.supersede(writer.fence, plan.sha, "first")
        writer.begin()
        assert writer.ledger.open_plan("main") == plan
        writer.ledger.supersede(writer.fence, plan.sha, "second")
        assert writer.ledger.open_plan("main") is None

    def test_only_on_the_head(self, writer: Writer) -> None:
        stale = plan_on(writer.head)
        writer.learn()
        with pytest.raises(LedgerCorrupt, match="stands on"):
            writer.ledger.begin(writer.fence, stale)

    def test_done_is_not_superseded(self, writer: Writer) -> None:
        row = writer.learn()
        assert row.plan is not None
        with pytest.raises(LedgerCorrupt, match="not open"):
            writer.ledger.supersede(writer.fence, row.plan, "too late")
        with pytest.raises(LedgerCorrupt, match="not open"):
            writer.ledger.supersede(writer.fence, "0" * 64, "never was")


class TestLease:
    def test_a_live_lease_is_respected(self, store: Store, writer: Writer) -> None:
        with pytest.raises(LeaseHeld, match=r"pid 1 on host elsewhere for another (60|59)\.\d s"):
            store.ledger().acquire("main", owner="b", ttl_s=60)
        writer.learn()

    def test_an_expired_lease_is_free_and_its_owner_fenced(self, store: Store) -> None:
        ledger = store.ledger()
        ledger.create(a_chain())
        old = ledger.acquire("main", owner=OWNER, ttl_s=0)
        new = ledger.acquire("main", owner="b", ttl_s=60)
        assert new.epoch > old.epoch
        with pytest.raises(Fenced, match="belongs to b"):
            ledger.renew(old, ttl_s=60)

    def test_an_expired_lease_nobody_wanted_can_be_renewed(self, store: Store) -> None:
        ledger = store.ledger()
        ledger.create(a_chain())
        fence = ledger.acquire("main", owner=OWNER, ttl_s=0)
        ledger.renew(fence, ttl_s=60)
        with pytest.raises(LeaseHeld):
            ledger.acquire("main", owner="b", ttl_s=60)

    def test_released_is_free_at_once(self, store: Store, writer: Writer) -> None:
        writer.ledger.release(writer.fence)
        writer.ledger.release(writer.fence)
        with pytest.raises(Fenced, match="nobody yet"):
            writer.learn()
        fence = store.ledger().acquire("main", owner="b", ttl_s=60)
        writer.ledger.release(writer.fence)  # of an epoch long over: touches nothing
        Writer(writer.ledger, store.blobs, fence, writer.head).learn()

    def test_a_zombie_writes_nothing(self, store: Store, writer: Writer) -> None:
        planned = writer.begin()
        row = learned(store.blobs, writer.head, planned)
        successor = taken_over(store, writer)
        zombie = writer.ledger, writer.fence
        refused: list[Callable[[Ledger, Any], object]] = [
            lambda ledger, fence: ledger.begin(fence, plan_on(writer.head, "z")),
            lambda ledger, fence: ledger.begin(fence, planned),
            lambda ledger, fence: ledger.commit(fence, row, CIRCUMSTANCE),
            lambda ledger, fence: ledger.supersede(fence, planned.sha, "zombie"),
            lambda ledger, fence: ledger.add_floors(fence, [("events", 0, 1, 2)]),
            lambda ledger, fence: ledger.renew(fence, ttl_s=60),
            lambda ledger, fence: ledger.truncate(fence, "zombie"),
        ]
        for attempt in refused:
            with pytest.raises(Fenced, match="nothing was written"):
                attempt(*zombie)
        writer.ledger.release(writer.fence)
        again = store.ledger()
        assert again.head("main") == writer.head
        assert again.open_plan("main") == planned
        assert again.floors("main") == []
        successor.commit(row)  # the new owner goes on with the old one's plan
        with pytest.raises(Fenced):
            writer.commit(row)  # not even what is already true


class TestDamage:
    def test_a_damaged_head_is_told_and_repaired(self, store: Store, writer: Writer) -> None:
        good = writer.learn()
        lost = [writer.learn(), writer.learn()]
        left_open = writer.begin()
        for row in lost:
            store.blobs.stored[row.posterior] = b"flipped"
        with pytest.raises(LedgerCorrupt, match=r"row 3.*damaged.*repair"):
            store.ledger().head("main")
        successor = taken_over(store, writer)
        assert successor.ledger.truncate(successor.fence, "disk") == [r.sha for r in lost[::-1]]
        assert successor.ledger.truncate(successor.fence, "disk") == []
        assert store.ledger().head("main") == good
        assert store.ledger().open_plan("main") is None
        assert left_open.parent != good.sha
        assert store.ledger().snapshot(lost[0].sha) is None
        successor.head = good
        assert [successor.learn(), successor.learn()] == lost
        assert [row.seq for row in store.ledger().history("main")] == [0, 1, 2, 3]

    def test_a_sound_chain_is_left_alone(self, writer: Writer) -> None:
        writer.learn()
        plan = writer.begin()
        assert writer.ledger.truncate(writer.fence, "for nothing") == []
        assert writer.ledger.open_plan("main") == plan

    def test_all_may_be_lost(self, store: Store, writer: Writer) -> None:
        store.blobs.stored.clear()
        writer.ledger.truncate(writer.fence, "folder deleted")
        assert store.ledger().head("main") is None
        writer.commit(root(store.blobs))


STEPS = ["before-plan", "after-plan", "before-ledger-commit", "in-ledger-commit", "after-ledger-commit"]


class TestCrash:
    @pytest.mark.parametrize("step", STEPS)
    def test_dying_at_any_step_leaves_all_or_nothing(self, store: Store, writer: Writer, step: str) -> None:
        before = writer.learn()
        store.crash.at = step
        with pytest.raises(Died):
            writer.learn(publish=("mlflow",))
        again = store.ledger()
        head, plan = again.head("main"), again.open_plan("main")
        done = step == "after-ledger-commit"
        assert head is not None
        assert (head != before) == done
        assert (plan is None) == (done or step == "before-plan")
        assert len(again.backlog("mlflow")) == done
        successor = taken_over(store, writer)
        successor.head = head
        if plan is not None:
            successor.commit(learned(store.blobs, head, plan))
        assert [row.seq for row in again.history("main")][-1] == successor.head.seq


class TestFloors:
    def test_in_the_order_written_and_once(self, store: Store, writer: Writer) -> None:
        first = [("events", 0, 10, 500), ("labels", 0, 3, 400)]
        writer.ledger.add_floors(writer.fence, first)
        writer.ledger.add_floors(writer.fence, [*first, ("events", 0, 10, 700)])
        found = store.ledger().floors("main")
        assert [(f.topic, f.partition, f.at_offset, f.floor_ms) for f in found] == [
            *first,
            ("events", 0, 10, 700),
        ]
        assert [f.seq for f in found] == [0, 1, 2]
        assert store.ledger().floors("other") == []


class TestOutbox:
    def test_oldest_first_until_published(self, store: Store, writer: Writer) -> None:
        rows = [writer.learn(publish=("mlflow",)) for _ in range(3)]
        ledger = store.ledger()
        assert [r.sha for r in ledger.backlog("mlflow")] == [r.sha for r in rows]
        assert [r.sha for r in ledger.backlog("mlflow", limit=1)] == [rows[0].sha]
        assert ledger.backlog("elsewhere") == []
        ledger.publish_failed(rows[0].sha, "mlflow", "down")
        ledger.publish_failed(rows[0].sha, "mlflow", "still down")
        first = ledger.backlog("mlflow")[0]
        assert (first.attempts, first.error, first.reference) == (2, "still down", None)
        for _ in range(2):
            ledger.published(rows[0].sha, "mlflow", "1")
        assert ledger.reference(rows[0].sha, "mlflow") == "1"
        assert ledger.reference(rows[1].sha, "mlflow") is None
        assert [r.sha for r in ledger.backlog("mlflow")] == [r.sha for r in rows[1:]]

    @pytest.mark.usefixtures("writer")
    def test_a_row_can_be_moved_on_and_keeps_what_went_wrong(self, store: Store) -> None:
        ledger = store.ledger()
        assert ledger.posted("a place", "elsewhere") is None
        ledger.publish_failed("a place", "elsewhere", "down")  # nothing is there to fail
        assert ledger.posted("a place", "elsewhere") is None
        for reference in ("1", "2"):
            ledger.published("a place", "elsewhere", reference)
        ledger.publish_failed("a place", "elsewhere", "down")
        row = store.ledger().posted("a place", "elsewhere")
        assert row is not None
        assert (row.reference, row.attempts, row.error) == ("2", 1, "down")
        ledger.published("a place", "elsewhere", "3")
        row = store.ledger().posted("a place", "elsewhere")
        assert row is not None
        assert (row.reference, row.error) == ("3", None)
        ledger.published("a place", "nowhere", "1")
        ledger.published("another place", "elsewhere", "1")
        found = store.ledger().posts("a place")
        assert [(row.sha, row.target, row.reference) for row in found] == [
            ("a place", "elsewhere", "3"),
            ("a place", "nowhere", "1"),
        ]
        assert ledger.posts("no place") == []

    @pytest.mark.usefixtures("writer")
    def test_how_far_somebody_is_never_moves_back(self, store: Store) -> None:
        ledger = store.ledger()
        for place, told in ((0, "0"), (9, "9"), (10, "10"), (9, "10"), (10, "10"), (2, "10"), (11, "11")):
            ledger.reached("a place", "elsewhere", place)
            row = store.ledger().posted("a place", "elsewhere")
            assert row is not None
            assert row.reference == told
        ledger.publish_failed("a place", "elsewhere", "down")
        ledger.reached("a place", "elsewhere", 10)  # one that comes late is no sign that all is well
        row = store.ledger().posted("a place", "elsewhere")
        assert row is not None
        assert row.error == "down"

    def test_what_was_set_aside_is_not_published(self, store: Store, writer: Writer) -> None:
        row = writer.learn(publish=("mlflow",))
        del store.blobs.stored[row.posterior]
        writer.ledger.truncate(writer.fence, "disk")
        assert writer.ledger.backlog("mlflow") == []


class TestDecisions:
    def decide(self, ledger: Ledger, action: Any, row: Snapshot, chain: str = "main") -> Any:
        return ledger.decide(
            chain,
            at_ms=5,
            actor="gate",
            action=action,
            snapshot=row.sha,
            evidence={"nll": 0.25, "events": [1, 2]},
        )

    def test_the_log_says_who_is_champion(self, store: Store, writer: Writer) -> None:
        first, second = writer.learn(), writer.learn()
        ledger = store.ledger()  # no fence: a command beside the run
        lines = [
            self.decide(ledger, "promote", first),
            self.decide(ledger, "refuse", second),
            self.decide(ledger, "promote", second),
            self.decide(ledger, "rollback", first),
        ]
        assert list(store.ledger().decisions("main")) == lines
        assert store.ledger().decided("main") == len(lines)
        assert store.ledger().decided("no such chain") == 0
        assert [line.previous for line in lines] == [None, first.sha, first.sha, second.sha]
        assert (champion(lines[:2]), previous(lines[:2])) == (first.sha, None)
        assert (champion(lines[:3]), previous(lines[:3])) == (second.sha, first.sha)
        assert champion(lines) == first.sha
        assert all(b.before == a.hash for a, b in pairwise(lines))

    def test_a_line_that_waits_puts_nobody_in_charge(self, store: Store, writer: Writer) -> None:
        first, second = writer.learn(), writer.learn()
        ledger = store.ledger()
        for action, row in (("wait", first), ("promote", first), ("wait", second), ("refuse", second)):
            self.decide(ledger, action, row)
        log = ledger.decisions("main")
        assert (champion(log), previous(log)) == (first.sha, None)
        assert champion(log[:1]) is None

    def test_the_log_may_be_read_from_a_line_on(self, store: Store, writer: Writer) -> None:
        row, ledger = writer.learn(), store.ledger()
        lines = [self.decide(ledger, action, row) for action in ("promote", "wait", "refuse", "wait")]
        for since in range(len(lines) + 2):
            assert list(store.ledger().decisions("main", since=since)) == lines[since:]
        assert list(store.ledger().decisions("no such chain", since=1)) == []

    def test_a_line_goes_only_where_one_looked(self, store: Store, writer: Writer) -> None:
        row, ledger = writer.learn(), store.ledger()

        def decide(after: str) -> Decision:
            return ledger.decide(
                "main", at_ms=5, actor="a", action="promote", snapshot=row.sha, evidence={}, after=after
            )

        first = decide("")
        with pytest.raises(LogMoved, match="has decided something since"):
            decide("")
        assert decide(first.hash).before == first.hash

    def test_an_unknown_snapshot_is_refused(self, writer: Writer) -> None:
        with pytest.raises(LedgerError, match="no such snapshot"):
            self.decide(writer.ledger, "promote", replace(writer.head, seq=99))
        with pytest.raises(LedgerError, match="no chain"):
            self.decide(writer.ledger, "promote", writer.head, "nowhere")


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))


@given(labels=st.lists(names, unique=True), report=st.dictionaries(names, numbers))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_and_number_survives(store: Store, labels: list[str], report: dict[str, float]) -> None:
    name = secrets.token_hex(8)
    with contextlib.closing(store.open()) as ledger:
        writer = Writer.on_new_chain(ledger, store.blobs, name)
        row = learned(store.blobs, writer.head, writer.begin())
        row = writer.commit(replace(row, labels=tuple(labels), report=report))
        assert ledger.head(name) == row
        assert row.sha == ledger.history(name)[-1].sha


def test_span_arithmetic_is_about_positions_not_topics(writer: Writer, store: Store) -> None:
    """A partition that appears later starts anywhere, with what it has released so far."""
    row = progress(store.blobs, writer.head)
    counts = {**row.counts, "consumed": row.counts["consumed"] + 2, "pending": 2}
    late = Span("events", 1, 1_000, 5, (1_003,), 2)
    writer.commit(replace(row, spans=(*row.spans, late), counts=counts))
