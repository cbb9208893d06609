"""Logs of records made by hypothesis, and an intake driven over them in any interleaving."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from stream.breaker import BreakerRules
from stream.clock import ClockRules
from stream.intake import Intake, IntakeRules
from stream.labels import Horizons
from stream.plan import Closing
from stream.record import Erased, Event, Label, Position, RawRecord, Record, Refusal
from stream.source import Floor, Partition
from stream.window import WindowRules

EVENTS, LABELS = "events", "labels"
Body = Event | Label | Refusal | Erased
Log = dict[Partition, list[Body]]

RULES = IntakeRules(
    clock=ClockRules(out_of_order_ms=5),
    horizons=Horizons(label_ms=60, dedup_ms=80, capacity=50),
    window=WindowRules(kind="count", size=4),
    breaker=BreakerRules(share=1.0, over=10_000, run=10_000),
)


def record(at: Position, body: Body) -> Record:
    raw = RawRecord(at, 0, None, repr(body).encode(), ())
    return Record(at, f"sha-{at}-{hash(repr(body)) & 0xFFFF:x}", body, raw)


@st.composite
def logs(draw: st.DrawFn, *, bad: bool = True) -> Log:
    """Events on two partitions, labels on two others: late, doubled, missing, out of order, bad."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 40))
    log: Log = {(t, p): [] for t in (EVENTS, LABELS) for p in range(2)}
    told: list[tuple[int, Body]] = []
    for i in range(count):
        name, time = f"e{i}", 10 * i + rng.randint(-12, 12)
        copies = 1 + (rng.random() < 0.1)
        for _ in range(copies):
            log[EVENTS, rng.randrange(2)].append(Event(event_id=name, text=f"text {i}", time_ms=time))
        for _ in range(rng.choice([0, 1, 1, 1, 1, 2])):
            late = int(rng.paretovariate(1.2) * 5)
            told.append((time + late, Label(event_id=name, label=rng.choice("abc"), time_ms=time + late)))
        if rng.random() < 0.05:
            told.append((time, Label(event_id=f"nobody{i}", label="a", time_ms=time)))
        if bad and rng.random() < 0.2:
            log[rng.choice(list(log))].append(Refusal("json", "not JSON"))
    for _, body in sorted(told, key=lambda pair: pair[0] + rng.randint(0, 9)):
        log[LABELS, rng.randrange(2)].append(body)
    return log


@dataclass
class Run:
    """What a run closed, and its state after each closing."""

    closings: list[Closing]
    states: list[bytes]
    intake: Intake
    floors: list[Floor]


def forecasts(closing: Closing) -> dict[str, dict[str, float]]:
    """Return something that depends on the event and on the number of windows before it."""
    return {a.event_id: {"a": len(a.text) / 10, "b": float(closing.index)} for a in closing.arrivals}


def settle(intake: Intake, run: Run, learned: Callable[[Closing], bool] = lambda _: True) -> None:
    while (closing := intake.next_closing()) is not None:
        whole = intake.foretold(closing, forecasts(closing))
        intake.settled(whole, learned=learned(whole))
        run.closings.append(whole)
        run.states.append(intake.state())


def drive(
    log: Log,
    *,
    rules: IntakeRules = RULES,
    seed: int = 0,
    state: bytes | None = None,
    floors: Sequence[Floor] = (),
    end: bool = True,
    restart_at: int | None = None,
) -> Run:
    """Offer the log in an interleaving that `seed` picks; then let silent partitions go."""
    rng = random.Random(seed)
    intake = Intake(rules, log, floors=floors, state=state)
    run = Run([], [], intake, list(floors))
    at = dict.fromkeys(log, 0) | dict(intake.wanted())
    while any(at[k] < len(log[k]) for k in log):
        key = rng.choice([k for k in log if at[k] < len(log[k])])
        for _ in range(rng.randint(1, 5)):
            if at[key] < len(log[key]):
                intake.offer(record(Position(*key, at[key]), log[key][at[key]]))
                at[key] += 1
        settle(intake, run)
        if restart_at is not None and len(run.states) >= restart_at:
            return run
    if end and not floors:
        for floor in intake.end_floors():
            run.floors.append(floor)
            intake.floor(floor)
        settle(intake, run)
    return run
