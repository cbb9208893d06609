"""The demo, interrupted: the Kafka that it began has ended with it, and one that ran before goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors import kafka_broker
from priorflow.exit_codes import ExitCode

# The command as it is, but for the mails, and for what it does once Kafka runs: waiting.
STANDS_IN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from priorflow import demo
from priorflow.cli import main
demo.fetch_mails, demo.load_mails = (lambda _: None), (lambda _: ())
demo.produce = lambda *_, **__: (print('{"event": "waits"}', flush=True), time.sleep(600))
main(["demo", "--json"])
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def broker(tmp_path: Path, kafka_jars: Path) -> Iterator[Path]:
    """The broker's folder in a home that has its jars; whatever runs there is stopped."""
    (tmp_path / "assets").symlink_to(kafka_jars.parent)
    yield tmp_path / "broker"
    kafka_broker.stop(tmp_path / "broker")


@contextmanager
def demo(home: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PRIORFLOW_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-c", STANDS_IN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environ,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> list[str]:
    """Interrupt it as Ctrl-C does, and return the events that it told since it was heard last."""
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, errors
    return [json.loads(line)["event"] for line in out.splitlines()]


def until_it_waits(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(json.loads(line)["event"] == "waits" for line in process.stdout)


def test_an_interrupted_demo_ends_the_kafka_that_it_began(broker: Path) -> None:
    with demo(broker.parent) as process:
        until_it_waits(process)
        assert kafka_broker.status(broker) is not None
        assert interrupt(process) == ["broker"]
    assert kafka_broker.status(broker) is None


def test_interrupted_while_kafka_starts_it_leaves_none_behind(broker: Path) -> None:
    with demo(broker.parent) as process:
        while kafka_broker.status(broker) is None:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        interrupt(process)
    assert kafka_broker.status(broker) is None


def test_a_kafka_that_ran_before_outlives_an_interrupted_demo(broker: Path, kafka_jars: Path) -> None:
    before = kafka_broker.start(broker, kafka_jars, environ=os.environ, heap_mb=256)
    with demo(broker.parent) as process:
        until_it_waits(process)
        assert interrupt(process) == []
    after = kafka_broker.status(broker)
    assert after is not None
    assert after.pid == before.pid
