"""The settings of infra/compose.yaml, started as plain processes, learn windows and publish them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from kafka import KafkaProducer
from psycopg import sql

from connectors.kafka_client import KafkaClient, ensure_topics
from connectors.kafka_jars import classpath, locked_jars
from connectors.kafka_java import find_java
from connectors.kafka_process import answers
from connectors.kafka_sink import COMPACTED
from priorflow.config import load
from tests.app.deployment import INFRA, PASSWORD, Deployment, properties, read
from tests.app.streams import small_stream
from tests.connectors import real_postgres

SMALL = ("window.size=30", "model.max_tokens=16", "model.rank=2", "learn.epochs=1", "records.idle=2s")
PATIENCE_S = 120
VERSIONS = "api/2.0/mlflow/model-versions/search"
ANSWER = """
import sys, mlflow
model = mlflow.pyfunc.load_model(f"models:/priorflow/{sys.argv[1]}")
print(model.predict([{"text": "win cheap cash"}]).to_json(orient="records"))
"""


def until(ready: Callable[[], Any], running: subprocess.Popen[bytes], log: Path) -> Any:
    """Ask again and again, as a health check does, until there is an answer that counts."""
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not (answer := ready()):
        assert running.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        pause.wait(0.2)
    return answer


@contextmanager
def service(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service for as long as it is needed."""
    with log.open("wb") as file:
        running = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@contextmanager
def kafka_node(deployment: Deployment, folder: Path, jars: Path) -> Iterator[KafkaClient]:
    """Format and run a node by the environment that Kafka's image would get."""
    environment = deployment.environment("kafka")
    told, log = folder / "server.properties", folder / "kafka.log"
    told.write_text("\n".join(properties(environment)), encoding="ascii")
    java = [str(find_java(os.environ).path), "-Xmx384m", "-cp", classpath(jars, locked_jars())]
    tool = [*java, "kafka.tools.StorageTool", "format", "-t", environment["CLUSTER_ID"], "-c", str(told)]
    subprocess.run(tool, check=True, capture_output=True)
    host, _, port = deployment.kafka.rpartition(":")
    with service([*java, "kafka.Kafka", str(told)], {}, log) as running:
        until(lambda: answers(host, int(port)), running, log)
        yield KafkaClient(bootstrap=deployment.kafka)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL with the user, the database and the SQL that its image would get; give its socket."""
    with real_postgres.running(folder) as server:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE priorflow SUPERUSER LOGIN PASSWORD {}").format(PASSWORD))
            connection.execute("CREATE DATABASE priorflow OWNER priorflow")
            for script in sorted((INFRA / "postgres").glob("*.sql")):
                connection.execute(script.read_bytes())
        yield parse_qs(urlsplit(server).query)["host"][0]


def asked(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except urllib.error.URLError:
        return None


@contextmanager
def registry(deployment: Deployment, folder: Path) -> Iterator[str]:
    """Run the MLflow server."""
    program, *arguments = deployment.command("mlflow")
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    url, log = deployment.here("http://mlflow:5000"), folder / "mlflow.log"
    with service(command, deployment.environment("mlflow"), log) as running:
        until(lambda: asked(f"{url}/health"), running, log)
        yield url


def answer(url: str, version: str, folder: Path) -> Any:
    """Have a stranger load a version through the server, and ask it."""
    command = [sys.executable, "-c", ANSWER, version]
    ours = {"PYTHONPATH": str(INFRA.parent), "MLFLOW_TRACKING_URI": url}
    done = subprocess.run(command, env={**os.environ, **ours}, cwd=folder, check=True, capture_output=True)
    return json.loads(done.stdout)[0]


def produce(client: KafkaClient) -> None:
    producer = KafkaProducer(**client.settings())
    for (topic, partition), lane in small_stream().lanes.items():
        for raw in lane:
            producer.send(topic, raw.value, partition=partition, headers=list(raw.headers))
    producer.flush(30)
    producer.close()


@pytest.mark.kafka
@pytest.mark.mlflow
@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_the_composed_services_learn_and_publish(tmp_path: Path, kafka_jars: Path) -> None:
    with ExitStack() as stack:
        deployment = read(tmp_path, sockets=stack.enter_context(postgres(tmp_path / "postgres")))
        client = stack.enter_context(kafka_node(deployment, tmp_path, kafka_jars))
        ensure_topics(client, deployment.topics())
        produce(client)
        url = stack.enter_context(registry(deployment, tmp_path))
        environment = {**deployment.environment("priorflow"), "PRIORFLOW_HOME": str(tmp_path / "home")}
        small = [word for setting in SMALL for word in ("--set", setting)]
        command = [sys.executable, "-m", "priorflow", *deployment.command("priorflow"), *small]
        log = tmp_path / "priorflow.log"
        running = stack.enter_context(service(command, environment, log))
        versions = until(
            lambda: json.loads(asked(f"{url}/{VERSIONS}") or b"{}").get("model_versions"), running, log
        )
        assert versions[0]["name"] == "priorflow"
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0, log.read_text()
        listing = [sys.executable, "-m", "priorflow", "snapshots", "ls", "--json", *small]
        rows = subprocess.run(listing, env={**os.environ, **environment}, check=True, capture_output=True)
        assert rows.stdout.count(b'"learned"') >= len(versions)
        said = answer(url, versions[0]["version"], tmp_path)
        assert said["version"] == versions[0]["version"]
        assert set(said["probabilities"]) <= {"linux", "money"}


def test_the_composed_settings_are_understood() -> None:
    settings = load(INFRA / "priorflow.yaml", overrides={})
    deployment = read(Path("/nowhere"), sockets="/nowhere")
    topics = settings.kafka.topics
    created = {wish.name: wish for wish in deployment.topics()}
    assert set(created) == {topics.events, topics.labels, topics.dead_letters, topics.late}
    assert all(wish.configs["retention.ms"] == "-1" for wish in created.values())
    aside = (created[topics.dead_letters].configs, created[topics.late].configs)
    assert all(configs.items() >= COMPACTED.items() for configs in aside)
    largest = int(deployment.environment("kafka")["KAFKA_MESSAGE_MAX_BYTES"])
    assert int(created[topics.dead_letters].configs["max.message.bytes"]) > largest


def test_the_image_holds_every_package_and_is_not_root() -> None:
    lines = (INFRA / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {match[1] for line in lines if (match := re.fullmatch(r"COPY (\w+) \1", line))}
    project = tomllib.loads((INFRA.parent / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert copied == packaged
    assert lines.index("USER 10001:10001") < lines.index('ENTRYPOINT ["priorflow"]')
