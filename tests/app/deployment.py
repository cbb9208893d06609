"""Read infra/compose.yaml as a container engine would, but for plain processes on loopback.

Variables are filled in, names of services become loopback with ports of our own, and folders inside
containers become folders of the test. Everything else is handed on as it stands.
"""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from connectors.kafka_client import TopicWish

INFRA: Final = Path(__file__).parents[2] / "infra"
PASSWORD: Final = "test-only"
_INSIDE: Final = ("/var/lib/kafka/data", "/var/lib/mlflow")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on just now, all different."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The services of the compose file, and what replaces addresses and folders in their settings."""

    services: Mapping[str, Any]
    replaced: Mapping[str, str]

    @property
    def kafka(self) -> str:
        """Where producers on this host reach Kafka."""
        return self.here("localhost:29092")

    def here(self, value: str) -> str:
        """Return a setting as it must read outside a container."""
        for there, ours in self.replaced.items():
            value = value.replace(there, ours)
        return value

    def environment(self, service: str) -> dict[str, str]:
        """Return a service's environment; a value that is no text is a fault that engines would refuse."""
        return {name: self.here(value) for name, value in self.services[service]["environment"].items()}

    def command(self, service: str) -> list[str]:
        """Return what a service runs."""
        entry, command = self.services[service].get("entrypoint", []), self.services[service]["command"]
        words = command if isinstance(command, str) else shlex.join(command)
        return [*entry, *shlex.split(self.here(words))]

    def topics(self) -> list[TopicWish]:
        """Return the topics that the one-shot service creates."""
        script = self.services["topics"]["command"][0]
        return [_wish(shlex.split(line)) for line in script.splitlines() if line.startswith("create --topic")]


def _wish(words: Sequence[str]) -> TopicWish:
    pairs = list(zip(words[1::2], words[2::2], strict=True))
    said = dict(pairs)
    configs = dict(value.split("=", 1) for option, value in pairs if option == "--config")
    return TopicWish(name=said["--topic"], partitions=int(said["--partitions"]), configs=configs)


def read(folder: Path, *, sockets: str) -> Deployment:
    """Read the compose file; PostgreSQL is reached through its socket in the folder `sockets`."""
    text = (INFRA / "compose.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\$\{POSTGRES_PASSWORD[^}]*\}", PASSWORD, text)
    client, controller, host, registry = (f"127.0.0.1:{port}" for port in free_ports(4))
    replaced = {
        "kafka:9092": client,
        "kafka:9093": controller,
        "localhost:29092": host,
        "://:9092": f"://{client}",
        "://:9093": f"://{controller}",
        "://:29092": f"://{host}",
        "--host 0.0.0.0": "--host 127.0.0.1",
        "mlflow:5000": registry,
        "--port 5000": f"--port {registry.rpartition(':')[2]}",
        "postgres:5432/priorflow": f"/priorflow?host={sockets}",
        "postgres:5432/mlflow": f"/mlflow?host={sockets}",
        "/etc/priorflow/priorflow.yaml": str(INFRA / "priorflow.yaml"),
        **{inside: str(folder / inside.strip("/").replace("/", "-")) for inside in _INSIDE},
    }
    return Deployment(yaml.safe_load(text)["services"], replaced)


def properties(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield server.properties as Kafka's image makes it from KAFKA_*: lower case, dots for underscores."""
    for name, value in environment.items():
        if name.startswith("KAFKA_"):
            yield f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={value}"
