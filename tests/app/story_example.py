"""A realistic story, made up deterministically: nine mail queues that come and go over a year and a half."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from posterior.snapshot import Span
from priorflow.scores import (
    Prediction,
    Prequential,
    final_accuracy,
    forgetting,
    prequential,
    reliability_bins,
)
from priorflow.story import MethodRow, Story, Taught, Verdict, WindowRow

PI_NEW = 0.01
QUEUES = ("spam", "fork", "ilug", "rpm", "razor", "sa", "zzzzteana", "exmh", "newsfeed")
# Mails by queue in each window, in the order of QUEUES.
MIX = (
    (500, 0, 0, 0, 0, 0, 0, 0, 0),
    (296, 98, 61, 25, 9, 11, 0, 0, 0),
    (172, 121, 96, 64, 21, 17, 9, 0, 0),
    (148, 133, 88, 70, 26, 12, 14, 9, 0),
    (109, 117, 91, 58, 55, 31, 12, 27, 0),
    (133, 109, 74, 41, 33, 35, 18, 51, 6),
    (120, 140, 55, 40, 21, 40, 14, 55, 15),
    (91, 128, 43, 39, 19, 28, 16, 40, 96),
    (84, 81, 21, 30, 14, 19, 11, 26, 214),
    (132, 66, 9, 18, 9, 12, 22, 14, 218),
    (61, 37, 4, 8, 3, 9, 11, 4, 70),
)
ENDS = (
    (2002, 7, 3),
    (2002, 7, 22),
    (2002, 8, 5),
    (2002, 8, 15),
    (2002, 8, 22),
    (2002, 8, 29),
    (2002, 9, 10),
    (2002, 9, 24),
    (2002, 10, 2),
    (2002, 10, 9),
    (2002, 12, 1),
)
BETAS = (1.0, 0.9, 0.999, 1.0, 0.99, 1.0, 0.999, 0.9, 0.5, 0.99, 1.0)
# Name, skill, overconfidence, how fast old queues fade.
METHODS = (
    ("priorflow", 2.3, 1.1, 0.006),
    ("sequential LoRA", 2.2, 1.9, 0.016),
    ("bag of words", 2.0, 4.0, 0.002),
)


def example(windows: int = len(MIX), *, thin: int = 1) -> Story:
    """Tell of so many windows; beyond the eleven of the mails they start over, `thin` times smaller."""
    mixes = [
        tuple(math.ceil(n / thin) for n in mix) for mix in itertools.islice(itertools.cycle(MIX), windows)
    ]
    told = {name: _told(name, skill, boldness, mixes) for name, skill, boldness, _ in METHODS}
    scored = {name: prequential(ps, pi_new=PI_NEW) for name, ps in told.items()}
    matrices = {name: _matrix(name, fade, mixes) for name, _, _, fade in METHODS}
    sizes = [sum(mix) for mix in mixes]
    rows = tuple(_row(w, mixes, scored["priorflow"]) for w in range(1, windows + 1))
    return Story(
        chain="demo",
        head_sha=rows[-1].snapshot_sha,
        seconds=287.4,
        windows=rows,
        ours="priorflow",
        methods={n: _method(scored[n], matrices[n], sizes) for n, *_ in METHODS},
        curves={name: made.windows for name, made in scored.items()},
        reliability={name: reliability_bins(ps, pi_new=PI_NEW) for name, ps in told.items()},
        matrix=matrices["priorflow"],
        pi_new=PI_NEW,
        replay_verified=True,
        dead_letters=rows[-1].counts["dead_lettered"],
        counts=rows[-1].counts,
        promoted_version=windows - 1 or None,
        decisions=_decisions(rows),
        tracking_uri="sqlite:///.priorflow/mlflow.db",
        registered_model="priorflow-demo",
        ledger_url="sqlite:///.priorflow/ledger.db",
        facts={
            "Records": "5,327 mails and 5,168 labels on 3 partitions each",
            "Broker": "Apache Kafka 4.3.1 on 127.0.0.1:19092",
            "Model": "MiniLM, query and value of layer 5, rank 8",
            "Family": "blob",
            "Runtime": "1 Ray worker, 1 thread, torch 2.13.0, AVX2",
        },
    )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _told(name: str, skill: float, boldness: float, mixes: Sequence[Sequence[int]]) -> list[Prediction]:
    rng = random.Random(name)
    told, known = [], dict[str, int]()
    for window, mix in enumerate(mixes, start=1):
        for queue, count in zip(QUEUES, mix, strict=True):
            for number in range(count):
                early = window == 2 and number % 50 == 0  # arrived before anything was known
                forecast = None if early or not known else _forecast(known, queue, skill, rng)
                told.append(Prediction(window, queue, forecast and _bolder(forecast, boldness)))
        for queue, count in zip(QUEUES, mix, strict=True):
            if count:
                known[queue] = known.get(queue, 0) + count
    return told


def _forecast(known: Mapping[str, int], truth: str, skill: float, rng: random.Random) -> dict[str, float]:
    weight = {
        queue: math.sqrt(seen) * math.exp(rng.gauss(skill if queue == truth else 0, 1.1))
        for queue, seen in known.items()
    }
    return {queue: w / sum(weight.values()) for queue, w in weight.items()}


def _bolder(forecast: Mapping[str, float], power: float) -> dict[str, float]:
    raised = {queue: p**power for queue, p in forecast.items()}
    return {queue: p / sum(raised.values()) for queue, p in raised.items()}


def _matrix(name: str, fade: float, mixes: Sequence[Sequence[int]]) -> tuple[tuple[float | None, ...], ...]:
    rng = random.Random(f"{name} remembers")
    top = [0.99, *(0.9 + rng.gauss(0, 0.02) for _ in mixes[1:])]
    return tuple(
        tuple(
            round(min(1.0, max(0.0, top[j] - fade * (i - j) + rng.gauss(0, 0.012))), 4) for j in range(i + 1)
        )
        for i in range(len(mixes))
    )


def _method(scored: Prequential, matrix: Sequence[Sequence[float | None]], sizes: Sequence[int]) -> MethodRow:
    total = scored.total
    return MethodRow(
        prequential_accuracy=total.accuracy if total else None,
        prequential_nll=total.nll if total else None,
        prequential_ece=total.ece if total else None,
        prequential_ece_by_window=scored.ece_by_window,
        final_accuracy=final_accuracy(matrix, sizes),
        forgetting=forgetting(matrix),
    )


def _row(index: int, mixes: Sequence[Sequence[int]], scored: Prequential) -> WindowRow:
    mix, made = mixes[index - 1], scored.windows.get(index)
    before = {q for earlier in mixes[: index - 1] for q, n in zip(QUEUES, earlier, strict=True) if n}
    classes = {q: n for q, n in zip(QUEUES, mix, strict=True) if n}
    learned = sum(map(sum, mixes[:index]))
    drift = index in {8, 9}
    return WindowRow(
        index=index,
        mails=sum(mix),
        accuracy=made.accuracy if made else None,
        nll=made.nll if made else None,
        ece=made.ece if made else None,
        kl_nats=round(140 + 410 * math.exp((1 - index) / 3) + (90 if drift else 0), 1),
        beta=BETAS[(index - 1) % len(BETAS)],
        drift=drift,
        snapshot_sha=_sha(f"snapshot {index}"),
        mlflow_version=index,
        parent=_sha(f"snapshot {index - 1}" if index > 1 else "root"),
        spans=_spans(learned),
        end_ms=_end_ms(index),
        classes=classes,
        new_classes=tuple(q for q in classes if q not in before),
        counts=_counts(index, learned),
        alarms=("errors rose", "surprise rose") if drift else (),
        taught=_taught(index, classes, learned),
    )


def _taught(index: int, classes: Mapping[str, int], learned: int) -> Taught:
    after = dict.fromkeys(classes, 0.05 + 0.2 / index)
    return Taught(
        by_site={f"encoder.layer.5.attention.self.{k}": 90 / index for k in ("query", "value")}
        | {"head": 40.5},
        worth=0.9 * learned,
        by_class={label: (count, 9 * after[label], after[label]) for label, count in classes.items()},
        moved=tuple((f"demo.mails[{p}]@{learned + p}", 4.0 - p, 0.25) for p in range(2)),
    )


def _end_ms(index: int) -> int:
    rounds, at = divmod(index - 1, len(ENDS))
    year, month, day = ENDS[at]
    return int(datetime(year + 2 * rounds, month, day, 9, 30, tzinfo=UTC).timestamp() * 1000)


def _spans(learned: int) -> tuple[Span, ...]:
    return tuple(
        Span(topic, p, low, 1_025_000_000_000 + low, (low + 2,) if p == 1 else (), low + (p == 1))
        for topic, ahead in (("demo.mails", 31), ("demo.labels", 0))
        for p in range(3)
        for low in (learned // 3 + ahead - 7 * p,)
    )


def _counts(index: int, learned: int) -> dict[str, int]:
    parts = {
        "learned": 2 * learned,
        "pending": 93 + 17 * (index % 3),
        "late": 0,
        "duplicate": 3 * index,
        "dead_lettered": min(14, 2 * index - 2),
        "expired": 12 * index,
        "quarantined": 0,
    }
    return {"consumed": sum(parts.values()), **parts}


def _decisions(rows: Sequence[WindowRow]) -> tuple[Verdict, ...]:
    promoted = (
        Verdict(
            action="promote",
            snapshot_sha=row.snapshot_sha,
            window=row.index,
            mlflow_version=row.mlflow_version,
            actor="gate",
            at_ms=1_795_000_000_000 + 20_000 * row.index,
            reasons=(
                "487 labelled mails",
                f"calibration error 0.0{31 + row.index}",
                f"moved 0.{69 - row.index} nats per mail",
                f"0.{row.index:02} nats per mail less than the champion",
            ),
        )
        for row in rows[:-1]
    )
    planted = Verdict(
        action="refuse",
        snapshot_sha=_sha("planted"),
        window=None,
        mlflow_version=rows[-1].index + 1,
        actor="gate",
        at_ms=1_795_000_300_000,
        reasons=(
            "calibration error 0.413 (at most 0.2)",
            "3.07 nats per mail more than the champion (at most 0.05 more)",
            "65.50 points of accuracy less than the champion (at most 2 less)",
        ),
    )
    return (*promoted, planted)
