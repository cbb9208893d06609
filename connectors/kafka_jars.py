"""The broker's jars: a committed list of coordinates and sha256, fetched as it stands.

Versions come from the lock and from nowhere else: a resolver's own choice has mixed Kafka 4.3 with
clients of 3.9. jgo fetches single files by explicit coordinates; Maven, where it is installed, is
the second way, for it knows the mirrors of its settings.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from connectors.assets import AssetUnavailable, Progress, keep, sha256_file, silent

KAFKA_VERSION: Final = "4.3.1"
_LOCK: Final = "jars.lock"
_COPY_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_TIMEOUT_S: Final = 60
_MAVEN_TIMEOUT_S: Final = 600
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, order=True)
class Jar:
    """One file of the classpath, by Maven coordinates and content."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """The file name that Maven gives it."""
        return f"{self.artifact}-{self.version}.jar"


def kafka_asset(name: str) -> str:
    """Return the text of a file that ships with the package."""
    return (files("connectors") / "kafka_assets" / name).read_text(encoding="utf-8")


def parse_lock(text: str) -> tuple[Jar, ...]:
    """Read `group:artifact:version sha256` lines; lines with # are for people."""
    return tuple(_jar(line) for line in text.splitlines() if line and not line.startswith("#"))


def _jar(line: str) -> Jar:
    coordinates, sha256 = line.split()
    group, artifact, version = coordinates.split(":")
    return Jar(group, artifact, version, sha256)


def locked_jars() -> tuple[Jar, ...]:
    """Return the broker's classpath as it is locked."""
    return parse_lock(kafka_asset(_LOCK))


def jars_folder(assets: Path) -> Path:
    """Return where the jars of this version lie among the assets."""
    return assets / f"kafka-{KAFKA_VERSION}"


def missing_jars(folder: Path, jars: Sequence[Jar]) -> tuple[Jar, ...]:
    """Return the jars that are not there, or not as locked."""
    return tuple(jar for jar in jars if sha256_file(folder / jar.filename) != jar.sha256)


def classpath(folder: Path, jars: Sequence[Jar]) -> str:
    """Join the jars' paths, sorted: the JVM's class-data sharing wants a stable order."""
    return ":".join(sorted(str((folder / jar.filename).absolute()) for jar in jars))


def fetch_jars(assets: Path, *, told: Progress = silent) -> Path:
    """Make sure every locked jar is in the assets and return their folder.

    Raises AssetUnavailable if neither jgo nor Maven could fetch them, AssetAltered if a jar is not
    the locked one.
    """
    folder = jars_folder(assets)
    missing = missing_jars(folder, locked_jars())
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        # A fetch that is cut off leaves half a file: it must never lie where the next one looks.
        with tempfile.TemporaryDirectory(dir=assets, prefix="fetching-") as staging:
            for jar, path in _fetched(missing, Path(staging), told).items():
                keep(path, jar.sha256, folder / jar.filename)
    return folder


def _fetched(jars: Sequence[Jar], staging: Path, told: Progress) -> Mapping[Jar, Path]:
    maven = shutil.which("mvn")
    try:
        return _by_jgo(jars, staging / "jgo", told)
    except AssetUnavailable as failed:
        if maven is None:
            raise
        try:
            return _by_maven(maven, jars, staging / "maven")
        except AssetUnavailable as also:
            msg = f"{failed}; and Maven could not either: {also}"
            raise AssetUnavailable(msg) from also


def _by_jgo(jars: Sequence[Jar], cache: Path, told: Progress) -> dict[Jar, Path]:
    try:
        from jgo.maven import MavenContext  # noqa: PLC0415 - of the extra; most commands need no jars
    except ModuleNotFoundError as absent:
        msg = (
            f"the jars of Kafka {KAFKA_VERSION} are not here, and neither is jgo to fetch them; "
            "pip install 'priorflow[broker]', or install Maven"
        )
        raise AssetUnavailable(msg) from absent

    def fetch(jar: Jar) -> Path:
        context = MavenContext(repo_cache=cache, timeout=_TIMEOUT_S)
        found = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        return Path(found)

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return _counted(jars, pool.map(fetch, jars), told)
    except (OSError, RuntimeError) as error:  # the latter is jgo's word for 'no repository has it'
        msg = (
            f"the jars of Kafka {KAFKA_VERSION} could not be fetched: {error}. Check the network; behind "
            "a private certificate authority set REQUESTS_CA_BUNDLE"
        )
        raise AssetUnavailable(msg) from error


def _counted(jars: Sequence[Jar], paths: Iterable[Path], told: Progress) -> dict[Jar, Path]:
    fetched: dict[Jar, Path] = {}
    for jar, path in zip(jars, paths, strict=True):
        fetched[jar] = path
        told(len(fetched), len(jars))
    return fetched


def _by_maven(maven: str, jars: Sequence[Jar], output: Path) -> dict[Jar, Path]:
    output.mkdir()
    pom = output / "pom.xml"
    pom.write_text(render_pom(jars), encoding="utf-8")
    command = [maven, "-q", "-B", "-f", str(pom), f"-DoutputDirectory={output}", _COPY_PLUGIN]
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Maven, with a POM of ours
            command, capture_output=True, text=True, timeout=_MAVEN_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{maven}: {error}"
        raise AssetUnavailable(msg) from error
    if done.returncode:
        msg = f"{maven} ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}"
        raise AssetUnavailable(msg)
    return {jar: output / jar.filename for jar in jars}


def render_pom(jars: Sequence[Jar]) -> str:
    """Write a POM that names every jar and forbids Maven to add or choose any."""
    dependencies = "\n".join(
        f"    <dependency><groupId>{jar.group}</groupId><artifactId>{jar.artifact}</artifactId>"
        f"<version>{jar.version}</version><exclusions><exclusion><groupId>*</groupId>"
        "<artifactId>*</artifactId></exclusion></exclusions></dependency>"
        for jar in jars
    )
    return (
        "<project>\n  <modelVersion>4.0.0</modelVersion>\n  <groupId>priorflow</groupId>"
        "<artifactId>kafka-classpath</artifactId><version>1</version><packaging>pom</packaging>\n"
        f"  <dependencies>\n{dependencies}\n  </dependencies>\n</project>\n"
    )
