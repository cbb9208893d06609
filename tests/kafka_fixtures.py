"""A real Kafka for tests: one broker per test process, topics of its own for every test."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors import kafka_broker
from connectors.kafka_broker import Running
from connectors.kafka_client import KafkaClient, TopicWish, ensure_topics
from connectors.kafka_jars import fetch_jars
from connectors.kafka_settings import ScramUser, SecureListener

USER: Final = ScramUser("reader", "a secret, with a comma")
_REPOSITORY: Final = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for the broker, so that the fast suite cannot start one by mistake."""
    for item in items:
        if "kafka_jars" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What TLS needs, as PEM files: the authority to trust, and the broker's chain with its key."""

    authority: Path
    keystore: Path


def make_certificates(folder: Path, *, host: str = "127.0.0.1") -> Certificates:
    """Write an authority and a certificate for a host, good for a day."""
    now = dt.datetime.now(dt.UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "priorflow test authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])

    def certificate(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    root = (
        certificate(issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    leaf = (
        certificate(subject, key.public_key())
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made = Certificates(folder / "authority.pem", folder / "broker.pem")
    made.authority.write_bytes(root.public_bytes(pem))
    made.keystore.write_bytes(secret + leaf.public_bytes(pem) + root.public_bytes(pem))
    return made


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Return the folder of the broker's jars, fetched once for all test runs."""
    home = Path(os.environ.get("PRIORFLOW_HOME", _REPOSITORY / ".priorflow"))
    return fetch_jars(home / "assets")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates for a broker on loopback."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def kafka_broker_running(
    tmp_path_factory: pytest.TempPathFactory, kafka_jars: Path, certificates: Certificates
) -> Iterator[Running]:
    """Run one broker for this test process, with a plain listener and one with TLS and SCRAM."""
    folder = tmp_path_factory.mktemp("kafka")
    secure = SecureListener(keystore=certificates.keystore, users=(USER,))
    try:
        yield kafka_broker.start(folder, kafka_jars, environ=os.environ, secure=secure, heap_mb=384)
    finally:
        kafka_broker.stop(folder)


@pytest.fixture(scope="session")
def kafka(kafka_broker_running: Running) -> KafkaClient:
    """Return how to reach the broker of this test process."""
    return KafkaClient(bootstrap=kafka_broker_running.bootstrap)


@pytest.fixture
def new_topic(kafka: KafkaClient) -> Callable[..., str]:
    """Return a function that creates a topic under a name nobody else uses."""

    def create(stem: str = "topic", partitions: int = 1, **configs: str) -> str:
        name = f"{stem}-{uuid.uuid4().hex[:12]}"
        dotted = {key.replace("_", "."): value for key, value in configs.items()}
        ensure_topics(kafka, [TopicWish(name=name, partitions=partitions, configs=dotted)])
        return name

    return create
