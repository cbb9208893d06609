"""A loop over memory: log, ledger, blobs and a small updater, put together in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from connectors.blobs import MemoryBlobs
from connectors.codec import CodecRules, Mapped, decoder
from connectors.memory import MemoryLog, MemorySource
from connectors.memory_ledger import MemoryLedger
from posterior.snapshot import Chain, Circumstance, Snapshot
from stream.breaker import BreakerRules
from stream.clock import ClockRules
from stream.intake import IntakeRules
from stream.labels import Horizons
from stream.plan import Member, Setaside
from stream.record import RawRecord
from stream.window import WindowRules
from tests.trainers.tally import Tally
from trainers.loop import run
from trainers.parts import Parts, Rules, Scored
from trainers.window import FamilySpec, LearnSpec, Updater

EVENTS, LABELS = "mails", "answers"
CODEC = CodecRules(events_topic=EVENTS, labels_topic=LABELS, mapped=Mapped(time_unit="ms"))
RULES = Rules(
    chain=Chain(name="main", seed=3, settings={"for": "tests"}),
    intake=IntakeRules(
        clock=ClockRules(out_of_order_ms=20),
        horizons=Horizons(label_ms=5_000, dedup_ms=5_000, capacity=500),
        window=WindowRules(kind="count", size=20),
        breaker=BreakerRules(share=0.9, over=100, run=50),
    ),
    family=FamilySpec(),
    learn=LearnSpec(),
    runtime={"world": 1},
    until_end=True,
    idle_ms=10,
)


WORDS = {"linux": "kernel patch boots", "money": "cash offer now"}
SPORT = {"sport": "late goal match"}


def mails(
    count: int = 150,
    *,
    seed: int = 0,
    swap_from: int | None = None,
    words: Mapping[str, str] = WORDS,
) -> MemoryLog:
    """Return a log of mails with labels that come late, or never."""
    rng = random.Random(seed)
    log = MemoryLog([(EVENTS, p) for p in range(3)] + [(LABELS, p) for p in range(2)])
    told: list[tuple[int, str, str]] = []
    for i in range(count):
        kind = rng.choice(list(words))
        body = {"id": f"m{i}", "text": f"{words[kind]} {rng.choice('xyz')}", "time": 1000 + 10 * i}
        log.append((EVENTS, rng.randrange(3)), json.dumps(body).encode())
        if rng.random() > 0.03:
            label = kind if swap_from is None or i < swap_from else {"linux": "money", "money": "linux"}[kind]
            told.append((1000 + 10 * i + int(rng.paretovariate(1.1) * 15), f"m{i}", label))
    for time, name, label in sorted(told):
        body = {"event_id": name, "label": label, "time": time}
        log.append((LABELS, rng.randrange(2)), json.dumps(body).encode())
    return log


def judged(members: Sequence[Member]) -> Scored:
    """Score like the application, in a few lines."""
    seen = [m for m in members if m.forecast]
    events = [
        (max(m.forecast, key=m.forecast.__getitem__) != m.label, 1 - m.forecast.get(m.label, 0.0))
        for m in seen
        if m.forecast
    ]
    wrong = sum(w for w, _ in events)
    return Scored({"foretold": len(seen), "accuracy": 1 - wrong / len(seen) if seen else None}, events)


@dataclass
class World:
    """Everything that outlives a crash, and what the outside was told."""

    log: MemoryLog
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    asides: list[Setaside] = field(default_factory=list)
    ledger: MemoryLedger = field(init=False)
    crash: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self.ledger = MemoryLedger(self.blobs, crash=self._step)
        self.ledger.create(RULES.chain)

    def _step(self, step: str) -> None:
        self.crash(step)

    def go(
        self,
        rules: Rules = RULES,
        *,
        seed: int = 0,
        updater: Updater | None = None,
        crash: Callable[[str], None] = lambda _: None,
        stopping: Callable[[], bool] = lambda: False,
        keep: Callable[[Sequence[RawRecord]], None] = lambda _: None,
    ) -> Snapshot:
        """Run once more with a new owner, as a restarted process would."""
        self.crash = crash
        fence = self.ledger.acquire("main", owner=f"run-{seed}", ttl_s=60, takeover=True)
        clock = iter(range(0, 10**9, 5))
        parts = Parts(
            source=MemorySource(self.log, seed=seed),
            decode=decoder(CODEC),
            ledger=self.ledger,
            blobs=self.blobs,
            updater=updater or Tally(),
            score=judged,
            aside=self.asides.extend,
            keep=keep,
            circumstance=lambda seconds: Circumstance(at_ms=0, host="", code_version="", seconds=seconds),
            now_ms=lambda: next(clock),
            crash=crash,
            stopping=stopping,
        )
        return run(parts, rules, fence)

    def shas(self) -> list[str]:
        return [s.sha for s in self.ledger.history("main")]


def windowed(size: int) -> Rules:
    """Return the rules with another window size."""
    return replace(RULES, intake=replace(RULES.intake, window=WindowRules(kind="count", size=size)))
