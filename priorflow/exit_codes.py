"""What a command's exit status means, and which error leads to which: decided here and nowhere else."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """The exit status; a supervisor may go by it."""

    OK = 0
    BUG = 1
    USAGE = 2
    UNREACHABLE = 3
    LOST = 4
    FENCED = 5
    BREAKER = 6
    DIFFERS = 7
    DIVERGED = 8
    INTERRUPTED = 130


MEANING: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "done",
    ExitCode.BUG: "a fault of priorflow itself; run again with --debug and report it",
    ExitCode.USAGE: "wrong command line or configuration; nothing was done",
    ExitCode.UNREACHABLE: "Kafka, the ledger, the disk or MLflow cannot be used now; try again",
    ExitCode.LOST: "evidence is gone or does not verify; nothing was written on top of it",
    ExitCode.FENCED: "another process owns the chain",
    ExitCode.BREAKER: "too many records are bad; nothing beyond the last commit was set aside",
    ExitCode.DIFFERS: "a replay or a verification did not give the same again",
    ExitCode.DIVERGED: "a belief stopped being a number",
    ExitCode.INTERRUPTED: "interrupted; the next run goes on from the last commit",
}

# By name, not by class: a command that never touched Kafka or torch need not import them to fail.
_CODES: Final[Mapping[str, ExitCode]] = {
    "priorflow.config.ConfigError": ExitCode.USAGE,
    "priorflow.secret.NoSecret": ExitCode.USAGE,
    "priorflow.peft_folder.FolderHeld": ExitCode.USAGE,
    "connectors.dead_letters.NoSuchLetter": ExitCode.USAGE,
    "trainers.answer.NothingLearned": ExitCode.USAGE,
    "trainers.peft_form.NoPeftForm": ExitCode.USAGE,
    "trainers.single.NotSingle": ExitCode.USAGE,
    "priorflow.deciding.NotAllowed": ExitCode.USAGE,
    "trainers.sites.NoSuchSite": ExitCode.USAGE,
    "trainers.unembedding.NoPlainOutput": ExitCode.USAGE,
    "trainers.ray_update.WorkersLost": ExitCode.UNREACHABLE,
    "stream.breaker.TooMuchBad": ExitCode.BREAKER,
    "connectors.kafka_client.ClusterRefused": ExitCode.USAGE,
    "stream.source.SourceError": ExitCode.UNREACHABLE,
    "stream.source.SourceUnavailable": ExitCode.UNREACHABLE,
    "stream.source.SourceLost": ExitCode.LOST,
    "connectors.assets.AssetError": ExitCode.UNREACHABLE,
    "connectors.assets.AssetUnavailable": ExitCode.UNREACHABLE,
    "connectors.assets.AssetAltered": ExitCode.LOST,
    "connectors.kafka_broker.BrokerError": ExitCode.UNREACHABLE,
    "connectors.kafka_broker.BrokerFailed": ExitCode.UNREACHABLE,
    "connectors.kafka_broker.BrokerFolder": ExitCode.USAGE,
    "connectors.kafka_java.NoJava": ExitCode.USAGE,
    "priorflow.published.CannotOpen": ExitCode.LOST,
    "posterior.snapshot.LedgerError": ExitCode.USAGE,
    "posterior.snapshot.LedgerUnavailable": ExitCode.UNREACHABLE,
    "posterior.snapshot.LeaseHeld": ExitCode.FENCED,
    "posterior.snapshot.Fenced": ExitCode.FENCED,
    "posterior.snapshot.LedgerCorrupt": ExitCode.LOST,
    "posterior.registry.RegistryError": ExitCode.UNREACHABLE,
    "posterior.registry.RegistryUnavailable": ExitCode.UNREACHABLE,
    "posterior.registry.RegistryRefused": ExitCode.USAGE,
    "posterior.family.NotFinite": ExitCode.DIVERGED,
    "posterior.sight.OtherPanel": ExitCode.USAGE,
}
_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def code_for(error: BaseException) -> ExitCode:
    """Return the exit status of an error: that of the nearest class the table knows, else BUG."""
    if _interrupted(error):
        return ExitCode.INTERRUPTED
    for kind in type(error).__mro__:
        code = _CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    if isinstance(error, OSError) and error.errno in _DISK:
        return ExitCode.UNREACHABLE
    return ExitCode.BUG


def _interrupted(error: BaseException | None) -> bool:
    """Tell whether an error is an interrupt, or came up while one was being handled.

    A client that is closed in mid-call because somebody pressed Ctrl-C may well fail at it.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def known_errors() -> tuple[str, ...]:
    """Return the dotted names of the errors the table knows."""
    return tuple(_CODES)
