"""`priorflow score`: every event of the topic is answered on another one, exactly once.

take events ──> decode ──> the champion answers ──> answers, dead letters and positions in one transaction
                  └─ without what was erased

Who reads answers with `read_committed` sees one for each record, whatever dies. Processes of one chain form a
group and share the partitions. A record that cannot be read goes to the dead-letter topic, as `run` does with
it too (two letters of one position count as one), and so does a text that makes the model fail. When that
happens too often it is the model that is broken: then nothing more is written, and it stops.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final, final

from connectors.codec import answer_record, decoder
from connectors.crash import Crash, live
from connectors.kafka_client import TopicWish
from connectors.kafka_exchange import ExchangeRules, KafkaExchange, Undone
from connectors.kafka_sink import roomy
from connectors.letters import Outgoing, letter
from priorflow.batches import STAGE, Outcome, Pace, TooSlow, asked_of, outcomes
from priorflow.cluster import client
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.passing_over import PassingOver
from priorflow.rules import codec_rules
from priorflow.run import SOURCE_NAME
from priorflow.serving.comparing import Heard
from priorflow.serving.desk import Desk, Told
from priorflow.serving.following import following
from priorflow.serving.shadow import Shadow, shadowing
from priorflow.serving.version import Version
from priorflow.serving.wire import answered
from priorflow.shadow_topic import ShadowTopic
from priorflow.tenure import stop_signals
from stream.breaker import Breaker, BreakerRules
from stream.erasure import LeftOut
from stream.plan import Setaside
from stream.record import Event, Refusal
from trainers.answer import Answer

_AT_ONCE: Final = 64  # records of a transaction
_SOON_S: Final = 30.0  # what a batch is meant to take
_POLL_MS: Final = 500
_ANSWER_S: Final = 240.0  # less than a member may hold its partitions
_TRIES: Final = 10  # transactions that fail in a row before the cluster is believed to be unwell
_LAST_S: Final = 30.0  # for what is in the shadow's line at the end
_REMEDY: Final = (
    "Nothing of the last batch was written. If it is the model, promote another version or roll back; if it "
    "is the texts, raise serve.breaker; then start again"
)


def score(settings: Settings, console: Console, *, until_end: bool = False, crash: Crash = live) -> int:
    """Answer until stopped, or until everything is answered; return how many events were.

    TooMuchBad if the model fails at more texts than `serve.breaker` allows.
    """
    with (
        closing(ShadowTopic(settings)) as beside,
        following(settings, console, most=_AT_ONCE, patience_s=_ANSWER_S) as (desk, _),
        shadowing(settings, console, beside.add, grace_s=_LAST_S) as shadow,
        stop_signals() as stop,
        closing(PassingOver(settings, console)) as over,
        closing(KafkaExchange(client(settings), rules_of(settings), crash=crash)) as exchange,
    ):
        scorer = _Scorer(settings, console, desk, shadow, exchange, over.now)
        scorer.go(stop, until_end=until_end)
    console.say(f"{scorer.count} events answered", event="scored", answers=scorer.count)
    return scorer.count


def rules_of(settings: Settings) -> ExchangeRules:
    """Return what is read and written, and by which group."""
    topics = settings.kafka.topics
    return ExchangeRules(
        topics=(topics.events,),
        writes=(TopicWish(name=topics.answers), roomy(topics.dead_letters)),
        group=f"priorflow-{settings.chain.name}-score",
    )


@final
@dataclass
class _Scorer:
    """Goes from batch to batch; `gone` says what to pass over, None while that is not known."""

    settings: Settings
    console: Console
    desk: Desk
    shadow: Shadow | None
    exchange: KafkaExchange
    gone: Callable[[], LeftOut | None]
    count: int = 0

    def __post_init__(self) -> None:
        self._undone = 0  # in a row
        self._pace = Pace(most=_AT_ONCE, within_s=_SOON_S)
        limits = self.settings.serve.breaker
        rules = BreakerRules(share=limits.share, over=limits.over, run=limits.run)
        self._breaker = Breaker(rules, what="texts made the model fail", remedy=_REMEDY)
        self._decode = decoder(codec_rules(self.settings))

    def go(self, stop: threading.Event, *, until_end: bool) -> None:
        """Answer until stopped, or until the end; nothing is taken while champion or erasures are unknown."""
        while not stop.is_set():
            gone = self.gone()
            if self.desk.version is None or gone is None:
                stop.wait(self.settings.serve.poll / 1000)
            elif self._batch(gone) == 0 and until_end and self.exchange.at_end():
                return

    def _batch(self, gone: LeftOut) -> int | None:
        """Answer what there is; return how many records that were, None if they have to come again."""
        taken = self.exchange.take(timeout_ms=_POLL_MS, max_records=self._pace.at_once)
        records, begun = [gone.emptied(self._decode(raw)) for raw in taken], time.monotonic()
        try:
            done = list(outcomes(records, self.desk, within_s=_ANSWER_S))
        except TooSlow:
            self.exchange.put_back()
            self._pace = self._pace.halved()
            self.console.warn(
                f"{len(records)} records were not answered within {_ANSWER_S:.0f} s; fewer are taken again",
                event="undone",
            )
            return None
        texts = sum(isinstance(record.body, Event) for record in records)
        self._pace = self._pace.after(texts, time.monotonic() - begun)
        return len(records) if self._given(done) else None

    def _given(self, done: Sequence[Outcome]) -> bool:
        """Write what came of a batch; False if the transaction was undone."""
        breaker = copy.deepcopy(self._breaker)  # what comes again is not to be counted twice
        for one in done:
            _count(breaker, one)
        try:
            self.exchange.give(list(_written(self.settings, done)))
        except Undone as undone:
            self._undone += 1
            self.console.warn(str(undone), event="undone")
            if self._undone == _TRIES:
                raise
            return False
        self._breaker, self._undone = breaker, 0
        self._told(done)
        return True

    def _told(self, done: Sequence[Outcome]) -> None:
        """Tell of a transaction, and have the shadow see what was answered in it."""
        answers = [one for one in done if isinstance(one.said, Told)]
        letters = sum(isinstance(one.said, Refusal) for one in done)
        self.count += len(answers)
        if answers or letters:
            aside = f", {letters} set aside" if letters else ""
            text = f"{len(answers)} answered{aside}"
            self.console.say(text, event="answered", answers=len(answers), dead_letters=letters)
        if self.shadow is not None:
            for one in answers:
                _shown(self.shadow, one)


def _count(breaker: Breaker, one: Outcome) -> None:
    """Count a text for the breaker; what could not be read says nothing of the model."""
    if isinstance(one.said, Told):
        breaker.good()
    elif isinstance(one.said, Refusal) and one.said.stage == STAGE:
        breaker.bad(one.record.position, one.said)


def _written(settings: Settings, done: Sequence[Outcome]) -> Iterator[Outgoing]:
    """Yield what is to be written: answers, and letters of what cannot be read or answered."""
    for one in done:
        if isinstance(one.said, Refusal):
            yield letter(Setaside(one.record.whole(), one.said), settings.kafka.topics.dead_letters)
        elif isinstance(one.said, Told) and isinstance(one.record.body, Event):
            yield outgoing(settings, one.record.body, one.said.answers[0], one.said.version)


def _shown(shadow: Shadow, one: Outcome) -> None:
    event, told = one.record.body, one.said
    assert isinstance(event, Event)
    assert isinstance(told, Told)
    heard = Heard(version=told.version, answer=told.answers[0], seconds=told.seconds)
    shadow.see(event.event_id, asked_of(event), heard, at_ms=event.time_ms)


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
