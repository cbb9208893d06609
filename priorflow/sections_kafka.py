"""The sections about Kafka: the cluster, how to be let in, and the topics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from priorflow.secret import Secret, held
from priorflow.section import Section

EMBEDDED: Final = "embedded"
_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s,:\[\]]+):\d{1,5}")

Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class TopicSettings(Section):
    """Topic names. Events and labels may share one topic."""

    events: Topic = "priorflow.events"
    """Topic with what is to be judged."""
    labels: Topic = "priorflow.labels"
    """Topic with the truth, told later."""
    dead_letters: Topic = "priorflow.dead-letters"
    """Topic for records that cannot be used, with the reason in their headers."""
    late: Topic = "priorflow.late"
    """Topic for late records, where `records.late` is `divert`."""
    answers: Topic = "priorflow.answers"
    """Topic that `priorflow score` writes answers to."""
    shadow: Topic = "priorflow.shadow-answers"
    """Topic that `priorflow score` writes a shadow's answers to, where there is one (`serve.shadow`)."""

    @model_validator(mode="after")
    def _no_circle(self) -> TopicSettings:
        inputs = {self.events, self.labels}
        outputs = (self.dead_letters, self.late, self.answers, self.shadow)
        for name in outputs:
            if name in inputs:
                msg = f"{name!r} is read and written at once; name another topic"
                raise ValueError(msg)
        if len(set(outputs)) < len(outputs):
            msg = "dead letters, late records, answers and a shadow's cannot share a topic; name four"
            raise ValueError(msg)
        return self


class KafkaSettings(Section):
    """The cluster, and how to be let in."""

    bootstrap: str = EMBEDDED
    """`embedded` for the broker that `priorflow broker start` runs, or `host:port[,host:port]`."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How connections are protected."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How the user proves itself; needed with SASL_*."""
    sasl_username: str | None = None
    """User name for SASL_*."""
    sasl_password: Secret | None = None
    """Password for SASL_*; better given by the environment or `sasl_password_file`."""
    sasl_password_file: Path | None = None
    """File that holds the password for SASL_*; read at every connection."""
    ssl_cafile: Path | None = None
    """Certificates to trust (PEM); the system's if nothing is said."""
    ssl_certfile: Path | None = None
    """Certificate of this client (PEM), where the cluster asks for one."""
    ssl_keyfile: Path | None = None
    """Private key of `ssl_certfile` (PEM)."""
    ssl_check_hostname: bool = True
    """Whether the certificate must name the host that was called."""
    topics: TopicSettings = TopicSettings()
    """Topic names."""

    @field_validator("bootstrap")
    @classmethod
    def _reachable_form(cls, value: str) -> str:
        servers = [part.strip() for part in value.split(",")]
        if value != EMBEDDED and not all(_HOST_PORT.fullmatch(server) for server in servers):
            msg = f"write {EMBEDDED!r}, or host:port with commas between several"
            raise ValueError(msg)
        return ",".join(servers)

    @model_validator(mode="after")
    def _let_in(self) -> KafkaSettings:
        given = (self.sasl_password is not None) + (self.sasl_password_file is not None)
        told = {
            "sasl_mechanism": self.sasl_mechanism is not None,
            "sasl_username": self.sasl_username is not None,
            "sasl_password (or sasl_password_file)": given > 0,
        }
        if given > 1:
            msg = "sasl_password and sasl_password_file are both set; keep one"
            raise ValueError(msg)
        if self.security_protocol.startswith("SASL") and not all(told.values()):
            missing = ", ".join(name for name, set_ in told.items() if not set_)
            msg = f"security_protocol {self.security_protocol} also needs {missing}"
            raise ValueError(msg)
        if not self.security_protocol.startswith("SASL") and any(told.values()):
            msg = f"{self.security_protocol} would not use sasl_*; set security_protocol: SASL_SSL"
            raise ValueError(msg)
        return self

    def password(self) -> str | None:
        """Return the SASL password, wherever it is kept; NoSecret if its file holds none."""
        return held("kafka.sasl_password_file", self.sasl_password, self.sasl_password_file)
