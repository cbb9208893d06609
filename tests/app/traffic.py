"""Mails and labels as a producer sends them, in two forms, and everything that can be wrong with them."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

from connectors.kafka_client import KafkaClient, TopicWish, ensure_topics
from connectors.kafka_source import KafkaSource, KafkaSourceRules
from connectors.letters import Outgoing
from stream.record import Position, RawRecord, Stage
from tests.app.streams import WORDS

Kind = Literal["event", "label"]
Written = tuple[bytes | None, tuple[tuple[str, bytes], ...]]

ABSENT: Final = object()
BEGIN_MS: Final = 1_000_000_000_000
MINUTE: Final = 60_000
DISORDER_MS: Final = 90_000
PARTITIONS: Final[Mapping[Kind, int]] = {"event": 3, "label": 2}

SETTINGS: Final[Mapping[str, Any]] = {
    "records.out_of_order": "3m",  # more than the disorder there is: nothing good is late
    "records.idle": "1h",  # real time: no partition is given up while a test looks on
    "records.breaker.share": 0.9,
    "model.max_tokens": 16,
    "model.rank": 2,
    "learn.draws": 2,
    "learn.beta_sample": 8,
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a record says: a mail's text or a label, and when."""

    kind: Kind
    name: str
    said: Any
    when: Any


class Form(Protocol):
    """How records are written."""

    settings: Mapping[str, Any]

    def write(self, content: Content) -> Written:
        """Return value and headers; what is ABSENT is left out."""
        ...


class CloudEvents:
    """Mails in binary mode, labels in structured mode."""

    settings: Mapping[str, Any] = {}

    def write(self, content: Content) -> Written:
        if content.kind == "event":
            told = _present({"id": content.name, "time": content.when, "type": "mail", "specversion": "1.0"})
            return _json({"text": content.said}), tuple((f"ce_{k}", v.encode()) for k, v in told.items())
        data = _present({"event_id": content.name, "label": content.said})
        event = {"specversion": "1.0", "id": f"of {content.name}", "time": content.when, "data": data}
        return _json(event), (("content-type", b"application/cloudevents+json"),)


class OwnJson:
    """JSON of somebody else's making, read through pointers."""

    settings: Mapping[str, Any] = {
        "records.format": "mapped",
        "records.mapping.id": "/mail/number",
        "records.mapping.text": "/mail/body",
        "records.mapping.time": "/at",
        "records.mapping.label": "/verdict",
        "records.mapping.label_event_id": "/about/0",
        "records.mapping.label_time": "/at",
    }

    def write(self, content: Content) -> Written:
        if content.kind == "event":
            mail = _present({"number": content.name, "body": content.said})
            return _json({"mail": mail, "at": content.when}), ()
        return _json({"about": [content.name], "verdict": content.said, "at": content.when}), ()


FORMS: Final[Mapping[str, Form]] = {"cloudevents": CloudEvents(), "mapped": OwnJson()}


def _present(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if value is not ABSENT}


def _json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(_present(said)).encode()


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to be produced; `stage` is where it must be refused, None if it is to be believed."""

    out: Outgoing
    content: Content
    time_ms: int
    what: str = "good"
    stage: Stage | None = None


def iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one stream."""

    event: str
    label: str
    dead_letters: str

    @property
    def settings(self) -> Mapping[str, str]:
        named = {"events": self.event, "labels": self.label, "dead_letters": self.dead_letters}
        return {f"kafka.topics.{kind}": name for kind, name in named.items()}


def new_topics(kafka: KafkaClient) -> Topics:
    """Create topics nobody else uses; the dead-letter topic is left for the application to create."""
    mark = uuid.uuid4().hex[:12]
    topics = Topics(f"mails-{mark}", f"verdicts-{mark}", f"dead-{mark}")
    lanes = {topics.event: PARTITIONS["event"], topics.label: PARTITIONS["label"]}
    ensure_topics(kafka, [TopicWish(name=name, partitions=count) for name, count in lanes.items()])
    return topics


@dataclass(frozen=True, slots=True)
class Writer:
    """Puts contents into records of a form and picks partitions."""

    form: Form
    topics: Topics
    rng: random.Random

    def sent(self, content: Content, time_ms: int) -> Sent:
        return self.as_written(content, time_ms, self.form.write(content))

    def as_written(self, content: Content, time_ms: int, written: Written) -> Sent:
        value, headers = written
        topic = self.topics.event if content.kind == "event" else self.topics.label
        lane = self.rng.randrange(PARTITIONS[content.kind])
        out = Outgoing(topic=topic, partition=lane, key=content.name.encode(), value=value, headers=headers)
        return Sent(out, content, time_ms)

    def mails(self, count: int) -> list[Sent]:
        """Return mails a minute apart and their labels, which come late, in the order of production."""
        made: list[Sent] = []
        for i in range(count):
            kind, time_ms = self.rng.choice(sorted(WORDS)), BEGIN_MS + MINUTE * i
            made.append(
                self.sent(Content("event", f"m{i}", f"{WORDS[kind]} number {i}", iso(time_ms)), time_ms)
            )
            told_ms = time_ms + int(self.rng.paretovariate(1.2) * 1.5 * MINUTE)
            made.append(self.sent(Content("label", f"m{i}", kind, iso(told_ms)), told_ms))
        return sorted(made, key=lambda one: one.time_ms + self.rng.randrange(DISORDER_MS))

    def poisoned(self, mails: Sequence[Sent], *, each: int, upto: float = 0.8) -> list[Sent]:
        """Return the mails with every kind of bad record put in at random, within the first `upto` of them.

        Bad records bear the ids of good mails: they must not reserve them.
        """
        end = int(upto * len(mails))
        extra: list[tuple[int, Sent]] = []
        for _ in range(each):
            for kind in PARTITIONS:
                good = [one for one in mails if one.content.kind == kind]
                for what in BAD:
                    at = self.rng.randrange(end)
                    extra.append((at, self._bad(what, self.rng.choice(good).content, mails[at].time_ms)))
                at = self.rng.randrange(end)
                extra.append((at, self._alone(kind, mails[at].time_ms)))
                first, again = sorted(self.rng.sample(range(end), 2))
                extra.append((again + 1, self._twice(mails[first])))
        return [one for _, _, one in sorted(_places(mails, extra), key=lambda place: place[:2])]

    def _bad(self, what: str, content: Content, time_ms: int) -> Sent:
        stage, spoil = BAD[what]
        now = replace(content, when=iso(time_ms))
        return replace(self.as_written(now, time_ms, spoil(self.form, now, time_ms)), what=what, stage=stage)

    def _alone(self, kind: Kind, time_ms: int) -> Sent:
        name = f"alone-{self.rng.getrandbits(48):x}"
        said = f"{WORDS['linux']} {name}" if kind == "event" else "linux"
        return replace(self.sent(Content(kind, name, said, iso(time_ms)), time_ms), what="alone")

    def _twice(self, first: Sent) -> Sent:
        lane = self.rng.randrange(PARTITIONS[first.content.kind])
        return replace(first, out=replace(first.out, partition=lane), what="twice")


def _places(mails: Sequence[Sent], extra: Sequence[tuple[int, Sent]]) -> Iterable[tuple[int, int, Sent]]:
    yield from ((at, 1, one) for at, one in enumerate(mails))
    yield from ((at, 0, one) for at, one in extra)


Spoiler = Callable[[Form, Content, int], Written]


def _says(said: Any) -> Spoiler:
    return lambda form, content, _: form.write(replace(content, said=said))


def _at(when: Any) -> Spoiler:
    return lambda form, content, _: form.write(replace(content, when=when))


def _years(count: int) -> Spoiler:
    return lambda form, content, now: form.write(
        replace(content, when=iso(now + count * 366 * 1440 * MINUTE))
    )


def _inside(odd: bytes) -> Spoiler:
    def spoil(form: Form, content: Content, _: int) -> Written:
        value, headers = form.write(content)
        assert value is not None
        return value[:5] + odd + value[5:], headers

    return spoil


def _value(value: bytes | None) -> Spoiler:
    return lambda form, content, _: (value, form.write(content)[1])


def _cut(form: Form, content: Content, _: int) -> Written:
    value, headers = form.write(content)
    assert value is not None
    return value[:-1], headers


BAD: Final[Mapping[str, tuple[Stage, Spoiler]]] = {
    "not UTF-8": ("encoding", _inside(b"\xff")),
    "a null byte": ("json", _inside(b"\0")),
    "not JSON": ("json", _cut),
    "nothing": ("json", _value(None)),
    "NaN": ("json", _says(float("nan"))),
    "infinity": ("json", _says(float("inf"))),
    "another JSON": ("schema", _value(b"[7]")),
    "a number": ("schema", _says(7)),
    "a list": ("schema", _says(["linux"])),
    "a null character": ("schema", _says("linux\0")),
    "a missing field": ("schema", _says(ABSENT)),
    "no time": ("schema", _at(ABSENT)),
    "no date": ("schema", _at("yesterday")),
    "5 MB": ("size", _says("x" * 5_000_000)),
    "the year 9999": ("clock", _at("9999-06-30T12:00:00Z")),
    "the year 1": ("clock", _at("0001-01-01T00:00:00Z")),
    "2050": ("clock", _at("2050-01-01T00:00:00Z")),
    "1971": ("clock", _at("1971-01-01T00:00:00Z")),
    "two years ahead": ("clock", _years(2)),
    "two years behind": ("clock", _years(-2)),
}


def positions(stream: Iterable[Sent]) -> list[tuple[Position, Sent]]:
    """Return where each record comes to lie in topics that were empty."""
    filled: Counter[tuple[str, int]] = Counter()
    found = []
    for one in stream:
        assert one.out.partition is not None
        lane = (one.out.topic, one.out.partition)
        found.append((Position(*lane, filled[lane]), one))
        filled[lane] += 1
    return found


def whole_topic(kafka: KafkaClient, topic: str) -> list[RawRecord]:
    """Return everything a topic holds."""
    source = KafkaSource(kafka, KafkaSourceRules(topics=(topic,)))
    try:
        source.seek({})
        found: list[RawRecord] = []
        while not all(source.at_end(partition) for partition in source.partitions()):
            found += source.poll(timeout_ms=200, max_records=500)
        return found
    finally:
        source.close()
