"""The section about who hears of decisions, beside the log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, PlainSerializer, SecretStr, field_validator, model_validator

from priorflow.masking import only_the_host
from priorflow.quantities import Duration
from priorflow.secret import Secret, held_key
from priorflow.section import Section


def _show(url: SecretStr | None) -> str | None:
    return None if url is None else only_the_host(url.get_secret_value())


Hook = Annotated[SecretStr, PlainSerializer(_show, return_type=str, when_used="json")]


class DecisionSettings(Section):
    """Who hears of promotions, refusals and rollbacks; see docs/operations.md."""

    webhook: Hook | None = None
    """Address that every decision is POSTed to as a CloudEvent; shown without its path, often a secret."""
    webhook_secret: Secret | None = None
    """Key of the HMAC-SHA256 that signs what is sent; not signed if nothing is said."""
    webhook_secret_file: Path | None = None
    """File that holds the key."""
    webhook_timeout: Duration = Field(default=5_000, gt=0)
    """How long a delivery may wait for each step of the other side."""

    @field_validator("webhook")
    @classmethod
    def _reachable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        try:
            parts = urlsplit(value.get_secret_value())
            sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            msg = "write an address that begins with https:// or http:// and a host"
            raise ValueError(msg)
        if parts.username is not None or parts.password is not None:
            msg = "holds a user or a password, which are not sent; sign with webhook_secret"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _one_secret(self) -> DecisionSettings:
        if self.webhook_secret is not None and self.webhook_secret_file is not None:
            msg = "webhook_secret and webhook_secret_file are both set; keep one"
            raise ValueError(msg)
        return self

    def secret(self) -> str | None:
        """Return the key, wherever it is kept; NoSecret if its file holds none."""
        return held_key("decisions.webhook_secret_file", self.webhook_secret, self.webhook_secret_file)
