"""The embedded broker: one Apache Kafka node on loopback, its data kept over restarts.

    BrokerError
    ├── BrokerFailed    it ended, or was not ready in time; the message carries the end of its log
    └── BrokerFolder    the folder cannot be used as it is

`start` may be called by anybody at any time: it formats the folder the first time, starts the node
if none runs on it, and otherwise adopts the one that does. The node is a process of its own and
outlives whoever started it, until `stop`.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from connectors.kafka_jars import KAFKA_VERSION, classpath, kafka_asset, locked_jars
from connectors.kafka_java import Java, find_java
from connectors.kafka_process import PAUSE_S, alive, answers, end, find, listening, spawn
from connectors.kafka_settings import (
    LOOPBACK,
    BrokerFiles,
    Ports,
    SecureListener,
    candidate_ports,
    render_properties,
    scram_arguments,
)
from stream.source import SourceError

READY_S: Final = 90.0
STOP_S: Final = 30.0
_MAIN: Final = "kafka.Kafka"
_FORMAT: Final = "kafka.tools.StorageTool"
_TAIL_LINES: Final = 15
_ASK_MS: Final = 5000


class BrokerError(Exception):
    """Something about the embedded broker; the message says what to do."""


class BrokerFailed(BrokerError):
    """The broker ended, or was not ready in time; the message carries the end of its log."""


class BrokerFolder(BrokerError):
    """The broker's folder cannot be used as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a broker is, chosen once and kept with its data."""

    cluster: str
    ports: Ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A broker that runs: where to reach it, and whether this call found it running already."""

    pid: int
    cluster: str
    bootstrap: str
    secure_bootstrap: str
    folder: Path
    adopted: bool


def start(
    folder: Path,
    jars: Path,
    *,
    environ: Mapping[str, str],
    secure: SecureListener | None = None,
    heap_mb: int = 512,
    ready_s: float = READY_S,
) -> Running:
    """Have a broker run on this folder, and return once it answers.

    `jars` is the folder that `kafka_jars.fetch_jars` returned. Raises BrokerFailed if it does not
    get ready, BrokerFolder if the folder cannot be used, and NoJava.
    """
    files = BrokerFiles(folder.absolute())
    _usable(files)
    with _locked(files):
        identity = _identity(files)
        pid = _process(files)
        adopted = pid is not None
        with nullcontext() if adopted else _ended_if_interrupted(files):
            if pid is None:
                pid = _launch(files, identity, jars, environ, secure, heap_mb)
            _until_ready(files, identity, pid, ready_s)
    return _running(files, identity, pid, adopted=adopted)


def status(folder: Path) -> Running | None:
    """Return the broker that runs on this folder, or None; it may still be getting ready."""
    files = BrokerFiles(folder.absolute())
    pid = _process(files)
    return None if pid is None else _running(files, _read_identity(files), pid, adopted=True)


def stop(folder: Path, *, stop_s: float = STOP_S) -> bool:
    """Stop the broker of this folder and return whether one ran; SIGKILL if it takes too long."""
    files = BrokerFiles(folder.absolute())
    if _process(files) is None:
        return False
    with _locked(files):
        return _end(files, stop_s)


def log_tail(folder: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of the broker's log."""
    try:
        text = BrokerFiles(folder).log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])


def ready(bootstrap: str, cluster: str) -> bool:
    """Ask whether the broker of this cluster id answers there."""
    # Half a second of imports that `status` and `stop` need not pay.
    from connectors.kafka_client import KafkaClient, administration  # noqa: PLC0415

    client = KafkaClient(bootstrap=bootstrap, patience_ms=_ASK_MS)
    try:
        with administration(client, "asking the broker") as admin:
            return bool(admin.describe_cluster()["cluster_id"] == cluster)
    except SourceError:
        return False


def _running(files: BrokerFiles, identity: Identity, pid: int, *, adopted: bool) -> Running:
    return Running(
        pid=pid,
        cluster=identity.cluster,
        bootstrap=f"{LOOPBACK}:{identity.ports.client}",
        secure_bootstrap=f"{LOOPBACK}:{identity.ports.secure}",
        folder=files.folder,
        adopted=adopted,
    )


def _process(files: BrokerFiles) -> int | None:
    return find(files.pid, _MAIN, str(files.properties))


def _end(files: BrokerFiles, stop_s: float) -> bool:
    """End the broker, if one runs, and return whether one did; for whoever holds the lock."""
    pid = _process(files)
    if pid is not None:
        end(pid, signal.SIGTERM, stop_s) or end(pid, signal.SIGKILL, stop_s)
    files.pid.unlink(missing_ok=True)
    return pid is not None


@contextmanager
def _ended_if_interrupted(files: BrokerFiles) -> Iterator[None]:
    """End a broker whose start is interrupted; one that is only slow goes on, as its error says."""
    try:
        yield
    except BrokerError:
        raise
    except BaseException:
        _end(files, STOP_S)
        raise


def _usable(files: BrokerFiles) -> None:
    if "," in str(files.folder):
        msg = f"{files.folder}: Kafka takes a comma for the end of a path; choose a folder without one"
        raise BrokerFolder(msg)
    try:
        files.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{files.folder} cannot hold a broker: {error.strerror}"
        raise BrokerFolder(msg) from error


@contextmanager
def _locked(files: BrokerFiles) -> Iterator[None]:
    """Wait for our turn: two starts at once must not format or launch twice."""
    handle = os.open(files.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _identity(files: BrokerFiles) -> Identity:
    """Return the broker's identity; choose and keep one the first time."""
    if files.identity.exists():
        return _read_identity(files)
    chosen = Identity(cluster=_cluster_id(), ports=_free_ports(files.folder))
    draft = files.identity.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(chosen), indent=1) + "\n", encoding="utf-8")
    draft.replace(files.identity)
    return chosen


def _read_identity(files: BrokerFiles) -> Identity:
    try:
        kept = json.loads(files.identity.read_text(encoding="utf-8"))
        return Identity(cluster=kept["cluster"], ports=Ports(**kept["ports"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = (
            f"{files.identity} does not say which ports and cluster id belong to the data beside it "
            f"({error!r}); put it back, or remove {files.folder} and what it holds"
        )
        raise BrokerFolder(msg) from error


def _cluster_id() -> str:
    """Make a cluster id; one that began with a dash would be read as an option."""
    while True:
        made = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made


def _free_ports(folder: Path) -> Ports:
    free = (port for port in candidate_ports(folder) if not listening(LOOPBACK, port))
    return Ports(client=next(free), controller=next(free), secure=next(free))


def _launch(
    files: BrokerFiles,
    identity: Identity,
    jars: Path,
    environ: Mapping[str, str],
    secure: SecureListener | None,
    heap_mb: int,
) -> int:
    """Write the configuration, format the data the first time, start the node; return its pid."""
    _ports_free(files, identity, secure)
    java = find_java(environ)
    files.properties.write_text(render_properties(files, identity.ports, secure), encoding="ascii")
    files.logging.write_text(kafka_asset("log4j2.properties"), encoding="utf-8")
    path = classpath(jars, locked_jars())
    if not (files.data / "meta.properties").exists():
        _format(files, identity, _format_command(java, path, files, identity, secure), environ)
    if files.log.exists():
        files.log.replace(files.log.with_suffix(".log.1"))
    command = _broker_command(java, path, files, heap_mb)
    return spawn(command, pid_file=files.pid, log=files.log, environ=environ)


def _ports_free(files: BrokerFiles, identity: Identity, secure: SecureListener | None) -> None:
    ports = [identity.ports.client, identity.ports.controller]
    for port in ports + ([identity.ports.secure] if secure else []):
        if listening(LOOPBACK, port):
            msg = (
                f"port {port} of the broker in {files.folder} is held by another process; end that "
                f"one, or change the port in {files.identity}"
            )
            raise BrokerFolder(msg)


def _format_command(
    java: Java, path: str, files: BrokerFiles, identity: Identity, secure: SecureListener | None
) -> list[str]:
    command = [
        str(java.path),
        "-Xmx128m",
        f"-Dlog4j2.configurationFile={files.logging}",
        "-cp",
        path,
        _FORMAT,
    ]
    command += ["format", "--standalone", "-t", identity.cluster, "-c", str(files.properties)]
    return command + scram_arguments(secure, secrets.token_bytes(16))


def _broker_command(java: Java, path: str, files: BrokerFiles, heap_mb: int) -> list[str]:
    return [
        str(java.path),
        "-Xms64m",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        f"-XX:ErrorFile={files.folder}/java-error-%p.log",
        "--enable-native-access=ALL-UNNAMED",
        f"-Dlog4j2.configurationFile={files.logging}",
        "-cp",
        path,
        _MAIN,
        str(files.properties),
    ]


def _format(
    files: BrokerFiles, identity: Identity, command: Sequence[str], environ: Mapping[str, str]
) -> None:
    done = subprocess.run(  # noqa: S603 - Java, with a command of ours
        command, capture_output=True, text=True, env=dict(environ), check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])
        msg = f"{files.data} could not be formatted for cluster {identity.cluster}:\n{said}"
        raise BrokerFailed(msg)


def _until_ready(files: BrokerFiles, identity: Identity, pid: int, ready_s: float) -> None:
    deadline = time.monotonic() + ready_s
    port = identity.ports.client
    while not (answers(LOOPBACK, port) and ready(f"{LOOPBACK}:{port}", identity.cluster)):
        if not alive(pid):
            files.pid.unlink(missing_ok=True)
            raise BrokerFailed(_failure(files, f"Kafka {KAFKA_VERSION} ended while starting"))
        if time.monotonic() > deadline:
            what = f"Kafka {KAFKA_VERSION} (process {pid}) is not ready after {ready_s:.0f} s"
            hint = "start again to wait longer, or stop it"
            raise BrokerFailed(_failure(files, f"{what}; {hint}"))
        time.sleep(PAUSE_S)


def _failure(files: BrokerFiles, what: str) -> str:
    return f"{what}; the end of {files.log}:\n{log_tail(files.folder)}"
