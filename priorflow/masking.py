"""Passwords do not appear in what is printed."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MASK: Final = "***"
_CREDENTIALS: Final = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")


def without_password(url: str) -> str:
    """Return the address with its password masked; user and host stay, for they identify it."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    masked = f"{user.partition(':')[0]}:{MASK}@{place}"
    return urlunsplit(parts._replace(netloc=masked))


def only_the_host(url: str) -> str:
    """Return the address with all behind its host masked: of a webhook that is often the secret itself."""
    parts = urlsplit(url)
    bare = parts.path in {"", "/"} and not parts.query
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{'' if bare else f'/{MASK}'}"


def without_passwords(text: str) -> str:
    """Return a text with the password of every address in it masked: clients quote what they call."""
    return _CREDENTIALS.sub(rf"\1:{MASK}@", text)
