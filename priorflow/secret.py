"""A secret, from where it is kept: a setting, or a file that a setting names.

A secret that says nothing is refused wherever it comes from. Taken for one, it would let in whoever says
nothing; taken for none, it would leave a door open that somebody meant to lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

_MUST: Final = "must be a line of printable characters that is not blank"


class NoSecret(Exception):
    """The file that a setting names holds no secret; the message names both."""


def sound(secret: SecretStr) -> SecretStr:
    """Return the secret; ValueError if it is blank, or holds what cannot be printed."""
    if not _says(secret.get_secret_value()):
        msg = f"{_MUST}; leave it out where none is meant"
        raise ValueError(msg)
    return secret


Secret = Annotated[SecretStr, AfterValidator(sound)]


def held(setting: str, secret: SecretStr | None, file: Path | None) -> str | None:
    """Return what is said, or what the file of `setting` holds but its line's end; None where neither is.

    NoSecret if the file cannot be read, or holds none.
    """
    if file is None:
        return None if secret is None else secret.get_secret_value()
    try:
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as missing:
        msg = f"{setting}: {file} cannot be read ({missing.strerror}); write the secret there"
        raise NoSecret(msg) from missing
    except UnicodeDecodeError:
        text = ""
    if not _says(text):
        msg = f"{setting}: what {file} holds {_MUST}; write the secret there"
        raise NoSecret(msg)
    return text


def held_key(setting: str, secret: SecretStr | None, file: Path | None) -> str | None:
    """Return a secret as `held` does, without spaces around it: no header could carry them."""
    key = held(setting, secret, file)
    return None if key is None else key.strip()


def _says(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()
