"""What a shadow said, on a topic of its own: who reads answers never sees any of it.

Each is written once or not at all: what was in line when a process died is not made up for, for it is a
sample anyway. So it stays out of the transaction in which the champion's answers are.
"""

from __future__ import annotations

from typing import Any, Final, final

from connectors.codec import answer_record
from connectors.kafka_client import TopicWish, ensure_topics
from connectors.kafka_sink import KafkaSink
from connectors.letters import Outgoing
from priorflow.cluster import client
from priorflow.config import Settings
from priorflow.run import SOURCE_NAME
from priorflow.serving.comparing import Beside
from priorflow.serving.wire import answered
from stream.prediction_id import prediction_id

KIND: Final = "priorflow.shadow-answer"


@final
class ShadowTopic:
    """The topic, opened when there is something to write; for the thread of the shadow's line."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sink: KafkaSink | None = None

    def add(self, beside: Beside) -> None:
        """Write what the shadow said of an event; SourceUnavailable if that cannot be."""
        sink = self._open()
        sink.send_all([outgoing(beside, self._settings.kafka.topics.shadow)])
        sink.flush()

    def close(self) -> None:
        """Let go of the topic."""
        if self._sink is not None:
            self._sink.close()

    def _open(self) -> KafkaSink:
        if self._sink is None:
            reach = client(self._settings)
            ensure_topics(reach, [TopicWish(name=self._settings.kafka.topics.shadow)])
            self._sink = KafkaSink(reach)
        return self._sink


def outgoing(beside: Beside, topic: str) -> Outgoing:
    """Return a shadow's answer as a record: as the champion's, and how far it is from that one."""
    said = answered(beside.event_id, beside.shadow.answer, beside.shadow.version)
    champion, found = beside.champion, beside.difference
    value: dict[str, Any] = {
        **said.model_dump(mode="json"),
        "beside": {
            "prediction_id": prediction_id(beside.event_id, champion.version.snapshot.sha),
            "snapshot": champion.version.snapshot.sha,
            "label": champion.answer.label,
            "agrees": found.agrees,
            "delta_p": found.delta_p,
            "kl_nats": found.kl,
        },
    }
    data, headers = answer_record(
        value, name=said.prediction_id, time_ms=beside.at_ms, source=SOURCE_NAME, kind=KIND
    )
    return Outgoing(topic=topic, value=data, key=beside.event_id.encode(), headers=tuple(headers))
