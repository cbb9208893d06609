"""What it costs to read history: our whole intake against a bare consumer that only parses the JSON.

    .venv/bin/python benchmarks/history.py [--quick] [--json]

Ours: KafkaSource, decoder, merge, join, windows and their plans; nothing is learned. Bare: kafka-python and
`json.loads`, once as it is when nothing is set, once with the fetch settings of our source. In turn, over
the same topics of one broker, in one process.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.intervals import paired_ratio
from benchmarks.result import Result, Row, arguments, progress, publish
from benchmarks.streams import as_cloudevents, as_own_json, broker, fresh_folder, mails, produce, topics
from connectors.codec import decoder
from connectors.kafka_client import KafkaClient
from connectors.kafka_source import FETCH, KafkaSource, KafkaSourceRules
from priorflow.config import Settings, load
from priorflow.garbage import seldom_collected
from priorflow.rules import codec_rules, intake_rules
from stream.intake import Intake
from stream.plan import Closing, Plan, window_seed
from trainers.planning import plan_row

MAILS: Final = 40_000
PAIRS: Final = 12
QUICK_MAILS, QUICK_PAIRS = 5_000, 2
TARGET: Final = 0.6
FORMS: Final = {"cloudevents": as_cloudevents, "mapped": as_own_json}

Seconds = float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One reading of everything."""

    seconds: Seconds
    records: int
    windows: int = 0


def bare(client: KafkaClient, names: tuple[str, ...], fetch: Mapping[str, Any]) -> Pass:
    """Read the topics as kafka-python gives them, and parse every value."""
    consumer = KafkaConsumer(
        bootstrap_servers=client.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **fetch,
    )
    lanes = [TopicPartition(n, p) for n in names for p in sorted(consumer.partitions_for_topic(n))]
    consumer.assign(lanes)
    total, seen = sum(consumer.end_offsets(lanes).values()), 0
    begun = time.perf_counter()
    while seen < total:
        for batch in consumer.poll(timeout_ms=200).values():
            for record in batch:
                json.loads(record.value)
            seen += len(batch)
    seconds = time.perf_counter() - begun
    consumer.close()
    return Pass(seconds=seconds, records=seen)


def ours(client: KafkaClient, names: tuple[str, ...], settings: Settings) -> Pass:
    """Read the topics as a run does, up to the plan of every window."""
    source = KafkaSource(client, KafkaSourceRules(topics=names))
    decode, intake = decoder(codec_rules(settings)), Intake(intake_rules(settings), source.partitions())
    total, seen, windows = sum(source.ends().values()), 0, 0
    source.seek({})
    begun = time.perf_counter()
    while seen < total:
        raws = source.poll(timeout_ms=200, max_records=2000)
        for raw in raws:
            intake.offer(decode(raw))
        seen += len(raws)
        windows += _planned(intake)
    for floor in intake.end_floors():
        intake.floor(floor)
    windows += _planned(intake)
    seconds = time.perf_counter() - begun
    source.close()
    assert intake.counts.dead_lettered == 0, "the stream holds nothing bad"
    return Pass(seconds=seconds, records=seen, windows=windows)


def _planned(intake: Intake) -> int:
    """Plan every window that is complete and go on behind it."""
    count = 0
    while (closing := intake.next_closing()) is not None:
        if closing.kind == "window":
            plan_row(_plan(closing))
            count += 1
        intake.settled(intake.foretold(closing, {}), learned=True)
    return count


def _plan(closing: Closing) -> Plan:
    return Plan(
        chain="history",
        index=closing.index,
        parent="0" * 64,
        seed=window_seed(1, closing.index),
        settings_sha256="0" * 64,
        runtime={"world": 1, "threads": 1},
        members=closing.members,
        reach_before=closing.reach_before,
        reach=closing.reach,
    )


def measure(client: KafkaClient, form: str, count: int, pairs: int) -> tuple[list[Row], dict[str, Any]]:
    """Produce a history in this form, and read it in turn."""
    chosen, names = mails(count), topics(form)
    progress(f"{form}: producing {count} mails and their labels")
    produce(client, FORMS[form](chosen, names), names)
    settings = load(
        None,
        overrides={f"kafka.topics.{k}": v for k, v in names.model_dump().items()} | {"records.format": form},
    )
    both = (names.events, names.labels)
    ways: dict[str, Callable[[], Pass]] = {
        "ours": lambda: ours(client, both, settings),
        "a bare consumer as it comes": lambda: bare(client, both, {}),
        "a bare consumer with our fetch settings": lambda: bare(client, both, FETCH),
    }
    rounds = [_round(ways, f"{form} {i}/{pairs}") for i in range(pairs + 1)][1:]  # the first one warms up
    times = {way: [r[way].seconds for r in rounds] for way in ways}
    records = rounds[0]["ours"].records
    assert {r[way].records for r in rounds for way in ways} == {records}, "every pass reads everything"
    rows = [
        Row(
            what=f"records/s of reading, decoding, joining and planning history ({form}), to {way}",
            bound="at least",
            target=TARGET,
            measured=paired_ratio(times[way], times["ours"]),
            unit="ratio",
            runs=pairs,
        )
        for way in list(ways)[1:]
    ]
    rates = {way: round(records / sorted(times[way])[pairs // 2]) for way in ways}
    return rows, {"records": records, "windows": rounds[0]["ours"].windows, "median records/s": rates}


def _round(ways: Mapping[str, Callable[[], Pass]], title: str) -> dict[str, Pass]:
    out = {}
    for way, take in ways.items():
        gc.collect()
        out[way] = take()
    progress(f"{title}: " + ", ".join(f"{way} {p.records / p.seconds:,.0f}/s" for way, p in out.items()))
    return out


def main() -> None:
    """Measure both forms of records and publish."""
    asked = arguments(__doc__)
    count, pairs = (QUICK_MAILS, QUICK_PAIRS) if asked.quick else (MAILS, PAIRS)
    rows, how = list[Row](), dict[str, Any]()
    with broker(fresh_folder("history")) as client, seldom_collected():
        for form in FORMS:
            more, how[form] = measure(client, form, count, pairs)
            rows += more
    how["fetch settings of our source"] = dict(FETCH)
    how["collector"] = "all passes under priorflow.garbage.seldom_collected"
    publish(Result(name="history", rows=rows, how=how), asked)


if __name__ == "__main__":
    main()
