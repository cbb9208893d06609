"""The Kafka side of what the settings name: the embedded broker, or any other cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from connectors import kafka_broker
from connectors.kafka_broker import Running
from connectors.kafka_client import KafkaClient
from connectors.kafka_jars import fetch_jars
from connectors.kafka_topics import TopicFacts, topic_facts
from priorflow.config import Settings
from priorflow.console import Console, Progress
from priorflow.secret import NoSecret
from stream.source import SourceError, SourceUnavailable

_SILENT: Final = logging.NullHandler()
GLANCE_MS: Final = 3_000  # how long a look that may be left out waits for an answer


class BrokerDown(SourceUnavailable):
    """The embedded broker does not run."""


def start_broker(settings: Settings, console: Console) -> Running:
    """Have the embedded broker run in the home folder, fetching Kafka the first time."""
    with console.progress("fetching Kafka") as progress:
        jars = fetch_jars(settings.assets_folder, told=telling(progress))
    with console.progress("starting Kafka"):
        return kafka_broker.start(settings.broker_folder, jars, environ=os.environ)


@contextmanager
def broker_to_the_end(settings: Settings, console: Console) -> Iterator[Running]:
    """Have the embedded broker run, and go on running if the block comes to its end.

    If it does not, for an interrupt as for an error, a broker that was begun here is stopped; one that ran
    before is somebody else's, and goes on.
    """
    running = start_broker(settings, console)
    try:
        yield running
    except BaseException:
        if not running.adopted:  # stopped before it is told: who listened may be gone by the same Ctrl-C
            kafka_broker.stop(settings.broker_folder)
            console.say("Kafka has stopped; its data stays", event="broker", running=False)
        raise


def client(settings: Settings, *, patience_ms: int = 15_000) -> KafkaClient:
    """Return how the cluster is reached; BrokerDown if the embedded broker is meant and down."""
    kafka = settings.kafka
    # An outage is ours to tell, once and with a remedy; kafka-python writes a line per attempt.
    logging.getLogger("kafka").addHandler(_SILENT)
    return KafkaClient(
        bootstrap=bootstrap(settings),
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=kafka.password(),
        ssl_cafile=kafka.ssl_cafile,
        ssl_certfile=kafka.ssl_certfile,
        ssl_keyfile=kafka.ssl_keyfile,
        ssl_check_hostname=kafka.ssl_check_hostname,
        patience_ms=patience_ms,
    )


def bootstrap(settings: Settings) -> str:
    """Return the addresses to connect to; BrokerDown if the embedded broker is meant and down."""
    if not settings.embedded:
        return settings.kafka.bootstrap
    running = kafka_broker.status(settings.broker_folder)
    if running is None:
        msg = (
            f"the embedded broker in {settings.broker_folder} does not run; `priorflow broker "
            "start` starts it, kafka.bootstrap names another cluster"
        )
        raise BrokerDown(msg)
    return running.bootstrap


def facts(settings: Settings, *, patience_ms: int = 15_000) -> dict[str, TopicFacts]:
    """Return what the cluster says of our topics; topics that do not exist are left out."""
    topics = settings.kafka.topics
    names = dict.fromkeys((topics.events, topics.labels, topics.dead_letters, topics.late))
    return topic_facts(client(settings, patience_ms=patience_ms), list(names))


def ends_if_reachable(settings: Settings) -> dict[tuple[str, int], int] | None:
    """Return the end of every partition, or None where the log cannot be asked: just now, or from here."""
    try:
        told = facts(settings, patience_ms=GLANCE_MS)
    except (SourceError, NoSecret):
        return None
    return {
        (topic.name, partition): offset for topic in told.values() for partition, offset in topic.next.items()
    }


def telling(progress: Progress) -> Callable[[int, int], None]:
    """Return a (done, of how many) callback that moves this bar."""
    reached = 0

    def told(done: int, total: int) -> None:
        nonlocal reached
        progress.expect(total)
        progress.advance(done - reached)
        reached = done

    return told
