"""What a benchmark puts on its topics is what its words say."""

from __future__ import annotations

from benchmarks.streams import TASKS_MAPPED, as_tasks, topics
from connectors.codec import decoder
from connectors.vader import Rated
from priorflow.config import load
from priorflow.rules import codec_rules
from stream.record import Event, Label, Position, RawRecord
from stream.source import Partition

NAMES = topics("tasks")
CHOSEN = [Rated(f"d{i % 3}", f"{i}_1", f"text {i}", ("good", "bad")[i % 2], 0.0) for i in range(400)]


def test_texts_of_tasks_say_whose_they_are_and_labels_follow_them_in_time() -> None:
    said = {"records": TASKS_MAPPED, "kafka.topics": NAMES.model_dump()}
    decode = decoder(codec_rules(load(None, overrides=said)))
    lanes = as_tasks(CHOSEN, NAMES, seed=1)
    read: dict[Partition, list[Event | Label]] = {}
    for lane, records in lanes.items():
        bodies = [
            decode(RawRecord(Position(*lane, i), t, k, v)).body for i, (k, v, _, t) in enumerate(records)
        ]
        read[lane] = [body for body in bodies if isinstance(body, Event | Label)]
        times = [body.time_ms for body in read[lane]]
        assert len(times) == len(records)
        assert times == sorted(times)
    events = {b.event_id: b for bodies in read.values() for b in bodies if isinstance(b, Event)}
    labels = [b for bodies in read.values() for b in bodies if isinstance(b, Label)]
    assert {(e.text, e.task) for e in events.values()} == {(one.text, one.domain) for one in CHOSEN}
    truth = {one.text: one.label for one in CHOSEN}
    assert all(truth[events[b.event_id].text] == b.label for b in labels)
    assert all(b.time_ms > events[b.event_id].time_ms for b in labels)
    assert 0.9 * len(CHOSEN) < len(labels) < len(CHOSEN)  # some never come
