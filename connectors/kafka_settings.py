"""What the embedded broker is told: its files, ports, listeners and properties. Pure functions."""

from __future__ import annotations

import hashlib
import unicodedata
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from connectors.kafka_jars import kafka_asset

LOOPBACK: Final = "127.0.0.1"
MAX_RECORD_BYTES: Final = 8 * 1024 * 1024

# Below the ports that systems hand out for outgoing connections, so that ours is still free after
# a restart.
_FIRST_PORT: Final = 20_000
_PORTS: Final = 10_000

MECHANISMS: Final[Mapping[str, str]] = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
_ITERATIONS: Final = 8192


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """Where a broker keeps things, all under one folder."""

    folder: Path

    @property
    def data(self) -> Path:
        """The log segments; what must be kept."""
        return self.folder / "data"

    @property
    def identity(self) -> Path:
        """Cluster id and ports, chosen once."""
        return self.folder / "broker.json"

    @property
    def properties(self) -> Path:
        """What the broker reads; written at every start."""
        return self.folder / "server.properties"

    @property
    def logging(self) -> Path:
        """Where the broker's log goes; written at every start."""
        return self.folder / "log4j2.properties"

    @property
    def log(self) -> Path:
        """What the broker says."""
        return self.folder / "broker.log"

    @property
    def pid(self) -> Path:
        """The process, written by itself before it becomes Java."""
        return self.folder / "broker.pid"

    @property
    def lock(self) -> Path:
        """Held while somebody starts or stops it."""
        return self.folder / "broker.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The three ports of one node on loopback; `secure` listens only if asked to."""

    client: int
    controller: int
    secure: int


@dataclass(frozen=True, slots=True)
class ScramUser:
    """A user whom the broker knows from the day its data folder was formatted."""

    name: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureListener:
    """A second listener with TLS and SCRAM: certificate chain and key in one PEM, and its users."""

    keystore: Path
    users: tuple[ScramUser, ...]


def candidate_ports(folder: Path) -> Iterator[int]:
    """Yield ports to try, from a place of the folder's own so that two brokers seldom meet."""
    start = int.from_bytes(hashlib.sha256(str(folder).encode()).digest()[:4], "big")
    for step in range(_PORTS):
        yield _FIRST_PORT + (start + step) % _PORTS


def render_properties(files: BrokerFiles, ports: Ports, secure: SecureListener | None) -> str:
    """Write the server.properties of one node."""
    listeners = {
        "PLAINTEXT": (ports.client, "PLAINTEXT"),
        "CONTROLLER": (ports.controller, "PLAINTEXT"),
    }
    if secure is not None:
        listeners["SASL_SSL"] = (ports.secure, "SASL_SSL")
    addresses = {name: f"{name}://{LOOPBACK}:{port}" for name, (port, _) in listeners.items()}
    text = Template(kafka_asset("server.properties")).substitute(
        controller_port=ports.controller,
        listeners=",".join(addresses.values()),
        advertised=",".join(at for name, at in addresses.items() if name != "CONTROLLER"),
        protocols=",".join(f"{name}:{protocol}" for name, (_, protocol) in listeners.items()),
        data=escape(str(files.data)),
        max_record_bytes=MAX_RECORD_BYTES,
    )
    return text if secure is None else text + _secure_properties(secure)


def _secure_properties(secure: SecureListener) -> str:
    listener = "listener.name.sasl_ssl."
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    lines = [
        "",
        "# The listener with TLS and SCRAM.",
        f"{listener}ssl.keystore.type=PEM",
        f"{listener}ssl.keystore.location={escape(str(secure.keystore))}",
        f"{listener}sasl.enabled.mechanisms={','.join(MECHANISMS)}",
        *(f"{listener}{mechanism.lower()}.sasl.jaas.config={login}" for mechanism in MECHANISMS),
        "",
    ]
    return "\n".join(lines)


def scram_arguments(secure: SecureListener | None, salt: bytes) -> list[str]:
    """Return what the format command needs to know the users, by every mechanism.

    Salted here: other users of the host can read a command line, and the command's own syntax has
    no place for a comma in a password.
    """
    users = () if secure is None else secure.users
    return [
        argument
        for user in users
        for mechanism, digest in MECHANISMS.items()
        for argument in ("--add-scram", f"{mechanism}={_credential(user, digest, salt)}")
    ]


def _credential(user: ScramUser, digest: str, salt: bytes) -> str:
    """Salt a password as RFC 5802 says."""
    password = unicodedata.normalize("NFKC", user.password).encode()
    salted = hashlib.pbkdf2_hmac(digest, password, salt, _ITERATIONS)
    told = f'salt="{b64encode(salt).decode()}",saltedpassword="{b64encode(salted).decode()}"'
    return f"[name={user.name},iterations={_ITERATIONS},{told}]"


def escape(value: str) -> str:
    """Write a value as Java's properties want it: Latin letters only, backslashes doubled."""
    units = value.replace("\\", "\\\\").encode("utf-16-be", "surrogatepass")
    codes = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)  # noqa: PLR2004 - ASCII
