"""How a cluster is reached, and what its errors mean to us: said here for all Kafka connectors.

SourceError
├── SourceUnavailable   retry: no answer in time, no leader, no coordinator
├── SourceLost          stop: the log does not hold what we knew (raised in kafka_source)
└── ClusterRefused      stop: the cluster answers, and says no; the configuration must change
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from kafka import KafkaAdminClient
from kafka.errors import (
    AuthorizationError,
    IllegalSaslStateError,
    KafkaConfigurationError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NoError,
    RecordListTooLargeError,
    RetriableError,
    SaslAuthenticationFailedError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
    UnsupportedSaslMechanismError,
    for_code,
)

from stream.source import SourceError, SourceUnavailable

_REFUSALS: Final = (
    AuthorizationError,
    IllegalSaslStateError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)


class ClusterRefused(SourceError):
    """The cluster answers and says no: credentials, rights, a missing topic, a size limit."""


class NoSuchTopic(ClusterRefused):
    """A topic that is read or written does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaClient:
    """Where a cluster is and how we are let in; `patience_ms` bounds every wait for an answer."""

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_check_hostname: bool = True
    client_id: str = "priorflow"
    patience_ms: int = 15_000

    def settings(self) -> dict[str, Any]:
        """Return what every kafka-python client takes."""
        return {
            "bootstrap_servers": self.bootstrap.split(","),
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
            "ssl_cafile": _text(self.ssl_cafile),
            "ssl_certfile": _text(self.ssl_certfile),
            "ssl_keyfile": _text(self.ssl_keyfile),
            "ssl_check_hostname": self.ssl_check_hostname,
            "request_timeout_ms": self.patience_ms,
            "bootstrap_timeout_ms": self.patience_ms,
            "reconnect_backoff_max_ms": 2000,  # the default of 30 s outlasts most outages
        }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@contextmanager
def translated(client: KafkaClient, doing: str) -> Iterator[None]:
    """Turn kafka-python's errors into the port's, by type; `doing` says what failed."""
    where = f"{doing} at {client.bootstrap}"
    try:
        yield
    except _REFUSALS as no:
        msg = f"{where}: refused: {_said(no)}; check kafka.sasl_* and the rights of the user"
        raise ClusterRefused(msg) from no
    except KafkaConfigurationError as wrong:
        msg = f"{where}: {wrong}"
        raise ClusterRefused(msg) from wrong
    except UnsupportedCodecError as absent:
        msg = f"{where}: {absent}; pip install 'kafka-python[lz4,snappy,zstd]' reads every compression"
        raise ClusterRefused(msg) from absent
    except UnknownTopicOrPartitionError as missing:
        msg = f"{where}: no such topic; create it, or name another one in kafka.topics"
        raise NoSuchTopic(msg) from missing
    except (MessageSizeTooLargeError, RecordListTooLargeError) as large:
        msg = f"{where}: the topic takes no record of this size ({large}); raise its max.message.bytes"
        raise ClusterRefused(msg) from large
    except (RetriableError, OSError) as silent:
        msg = f"{where}: no answer ({_said(silent)}); is it up, and is kafka.bootstrap right?"
        raise SourceUnavailable(msg) from silent
    except KafkaError as error:
        msg = f"{where}: {_said(error)}"
        raise SourceError(msg) from error


def _said(error: BaseException) -> str:
    text, name = str(error), type(error).__name__
    return text if name in text else f"{name}: {text}".rstrip(": ")


def connect(client: KafkaClient, make: Any, **settings: Any) -> Any:
    """Open a kafka-python client of a kind, leaving nothing behind if it fails.

    kafka-python tries again until its patience ends, only logs why (a wrong password, an unknown
    certificate), and forgets the thread it started. All three are mended here.
    """
    opened: list[Any] = []

    def network(**config: Any) -> Any:
        opened.append(make.DEFAULT_CONFIG["kafka_client"](**config))
        return opened[-1]

    with _overheard() as causes:
        try:
            return make(**client.settings(), **settings, kafka_client=network)
        except BaseException as failed:
            for network_client in opened:
                network_client.close()
            if not isinstance(failed, KafkaTimeoutError):
                raise
            raise _telling(causes, failed) from failed


def _telling(causes: list[Exception], failed: Exception) -> Exception:
    """Return the error that says most: a refusal, else the last.

    A broker that refuses a password over TLS answers and hangs up; kafka-python often sees the
    hanging up alone. So being hung up on at every attempt to prove who we are is a refusal too.
    """
    refusals = [cause for cause in causes if isinstance(cause, _REFUSALS)]
    losses = [cause for cause in causes if isinstance(cause, KafkaConnectionError)]
    if not refusals and losses and all(map(_while_proving, losses)):
        refusals = [SaslAuthenticationFailedError("the broker hung up on us; is the password right?")]
    return (refusals or causes or [failed])[-1]


def _while_proving(cause: Exception) -> bool:
    return any(frame.name == "_sasl_authenticate" for frame in traceback.extract_tb(cause.__traceback__))


@contextmanager
def _overheard() -> Iterator[list[Exception]]:
    """Collect the errors that kafka-python logs while it connects."""
    listener = _Listener(logging.WARNING)
    logger = logging.getLogger("kafka.net")
    logger.addHandler(listener)
    try:
        yield listener.causes
    finally:
        logger.removeHandler(listener)


@final
class _Listener(logging.Handler):
    """Keeps the exceptions among the arguments of log records."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.causes: list[Exception] = []

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        self.causes += [
            argument
            for argument in arguments
            if isinstance(argument, KafkaError) and not isinstance(argument, KafkaTimeoutError)
        ]


@contextmanager
def administration(client: KafkaClient, doing: str) -> Iterator[Any]:
    """Open an admin client for a few calls, with errors translated."""
    with translated(client, doing):
        admin = connect(client, KafkaAdminClient)
        try:
            yield admin
        finally:
            admin.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicWish:
    """A topic as it should be created; `configs` are the cluster's own words."""

    name: str
    partitions: int = 1
    configs: Mapping[str, str] = field(default_factory=dict)


KEPT: Final[Mapping[str, str]] = {"retention.ms": "-1", "cleanup.policy": "delete"}
"""Retention goes by the time a record carries: under the default, a history deletes itself."""


def ensure_topics(client: KafkaClient, wishes: Sequence[TopicWish], *, replicas: int = -1) -> list[str]:
    """Create the topics that are missing, kept for ever unless said otherwise; return those created.

    A topic that exists is left as it is. `replicas` -1 is the cluster's default.
    """
    with administration(client, "creating topics") as admin:
        there = set(admin.list_topics())
        missing = [wish for wish in wishes if wish.name not in there]
        for wish in missing:
            with suppress(TopicAlreadyExistsError):  # somebody was quicker
                admin.create_topics({wish.name: _request(wish, replicas)})
        admin.wait_for_topics([wish.name for wish in missing], timeout_ms=client.patience_ms)
    return [wish.name for wish in missing]


def _request(wish: TopicWish, replicas: int) -> dict[str, Any]:
    return {
        "num_partitions": wish.partitions,
        "replication_factor": replicas,
        "configs": {**KEPT, **wish.configs},
    }


def partition_counts(admin: Any, topics: Sequence[str]) -> dict[str, int]:
    """Return how many partitions each topic has; NoSuchTopic names one that is missing."""
    told = {topic["name"]: topic for topic in admin.describe_topics(list(topics))}
    for topic in topics:
        error = for_code(told[topic]["error_code"]) if topic in told else UnknownTopicOrPartitionError
        if error is UnknownTopicOrPartitionError:
            msg = f"there is no topic {topic!r}; create it, or name another one in kafka.topics"
            raise NoSuchTopic(msg)
        if error is not NoError:
            raise error(topic)
    return {topic: len(told[topic]["partitions"]) for topic in topics}
