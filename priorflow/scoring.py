"""`priorflow score`: every event of the topic is answered on another one, exactly once.

take events ──> decode ──> the champion answers ──> answers, dead letters and positions in one transaction

Who reads answers with `read_committed` sees one for each record, whatever dies. Processes of one chain form a
group and share the partitions. A record that cannot be read goes to the dead-letter topic, as `run` does with
it too; two letters of one position count as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from connectors.codec import answer_record, decoder
from connectors.crash import Crash, live
from connectors.kafka_client import TopicWish
from connectors.kafka_exchange import ExchangeRules, KafkaExchange, Undone
from connectors.kafka_sink import roomy
from connectors.letters import Outgoing, letter
from posterior.family import ONE_TASK
from priorflow.cluster import client
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.rules import codec_rules
from priorflow.run import SOURCE_NAME
from priorflow.serving.desk import Desk
from priorflow.serving.following import following
from priorflow.serving.version import Version
from priorflow.serving.wire import answered
from priorflow.tenure import stop_signals
from stream.plan import Setaside
from stream.record import Event, Record, Refusal
from trainers.answer import Answer

_AT_ONCE: Final = 64  # records of a transaction
_POLL_MS: Final = 500
_ANSWER_S: Final = 240.0  # less than a member may hold its partitions
_TRIES: Final = 10  # transactions that fail in a row before the cluster is believed to be unwell


def score(settings: Settings, console: Console, *, until_end: bool = False, crash: Crash = live) -> int:
    """Answer until stopped, or until everything is answered; return how many events were."""
    decode = decoder(codec_rules(settings))
    with following(settings, console, most=_AT_ONCE) as (desk, _), stop_signals() as stop:
        exchange = KafkaExchange(client(settings), rules_of(settings), crash=crash)
        count = failures = 0
        try:
            while not stop.is_set():
                if desk.version is None:
                    stop.wait(settings.serve.poll / 1000)
                    continue
                records = exchange.take(timeout_ms=_POLL_MS, max_records=_AT_ONCE)
                written = list(_written(settings, [decode(raw) for raw in records], desk))
                try:
                    exchange.give(written)
                except Undone as undone:
                    failures += 1
                    console.warn(str(undone), event="undone")
                    if failures == _TRIES:
                        raise
                    continue
                failures = 0
                count += _tell(console, settings, written)
                if until_end and not records and exchange.at_end():
                    break
        finally:
            exchange.close()
    console.say(f"{count} events answered", event="scored", answers=count)
    return count


def rules_of(settings: Settings) -> ExchangeRules:
    """Return what is read and written, and by which group."""
    topics = settings.kafka.topics
    return ExchangeRules(
        topics=(topics.events,),
        writes=(TopicWish(name=topics.answers), roomy(topics.dead_letters)),
        group=f"priorflow-{settings.chain.name}-score",
    )


def _written(settings: Settings, records: Sequence[Record], desk: Desk) -> Iterator[Outgoing]:
    """Yield what is to be written for these records: answers, and letters of what cannot be read."""
    events = [record.body for record in records if isinstance(record.body, Event)]
    if events:
        told = desk.ask([(event.text, event.task or ONE_TASK) for event in events]).result(_ANSWER_S)
        for event, answer in zip(events, told.answers, strict=True):
            yield outgoing(settings, event, answer, told.version)
    for record in records:
        if isinstance(record.body, Refusal):
            yield letter(Setaside(record.whole(), record.body), settings.kafka.topics.dead_letters)


def outgoing(settings: Settings, event: Event, answer: Answer, version: Version) -> Outgoing:
    """Return an answer as a record: a CloudEvent named by its prediction id, keyed by the event's id."""
    said = answered(event.event_id, answer, version)
    value, headers = answer_record(
        said.model_dump(mode="json"), name=said.prediction_id, time_ms=event.time_ms, source=SOURCE_NAME
    )
    return Outgoing(
        topic=settings.kafka.topics.answers,
        value=value,
        key=event.event_id.encode(),
        headers=tuple(headers),
    )


def _tell(console: Console, settings: Settings, written: Sequence[Outgoing]) -> int:
    """Tell of a transaction; return how many answers were in it."""
    answers = sum(one.topic == settings.kafka.topics.answers for one in written)
    if written:
        letters = len(written) - answers
        aside = f", {letters} set aside" if letters else ""
        console.say(f"{answers} answered{aside}", event="answered", answers=answers, dead_letters=letters)
    return answers
