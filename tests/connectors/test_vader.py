from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from connectors import vader
from connectors.assets import AssetAltered
from connectors.vader import ARCHIVE, MAX_CHARS, SHA256, Rated, fetch_vader, label_of, load_vader

FILES = {
    "hutto_ICWSM_2014/tweets_GroundTruth.txt": "1\t2.5\tso &amp; so \u2028 good\r\n2\t-0.5\tmeh\r\n",
    "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt": f"1_1\t-3\t{'x' * 2000}\r\n\r\n1_2\t0.6\ta\tb",
    "hutto_ICWSM_2014/tweets_anonDataRatings.txt": "1\t2.5\t.1\t[3, 2]\r\n",
    "hutto_ICWSM_2014/elsewhere_GroundTruth.txt": "1\t1\tno domain of ours\r\n",
}


def _packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    inner = _packed({name: text.encode() for name, text in FILES.items()})
    made = tmp_path / ARCHIVE
    made.write_bytes(
        _packed(
            {
                "vaderSentiment-3.3.2/setup.py": b"raise SystemExit",
                "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner,
            }
        )
    )
    return made


def test_texts_of_the_four_domains_are_read_and_nothing_else(packed: Path) -> None:
    assert sorted(vader._read(packed)) == [
        Rated("products", "1_1", "x" * MAX_CHARS, "negative", -3.0),
        Rated("products", "1_2", "a b", "positive", 0.6),
        Rated("tweets", "1", "so & so good", "positive", 2.5),
        Rated("tweets", "2", "meh", "neutral", -0.5),
    ]


@pytest.mark.parametrize(
    ("mean", "label"),
    [(-4, "negative"), (-0.51, "negative"), (-0.5, "neutral"), (0.5, "neutral"), (0.51, "positive")],
)
def test_the_mean_rating_is_the_label(mean: float, label: str) -> None:
    assert label_of(mean) == label


def test_texts_that_are_not_all_there_are_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packed.parent / "vader").mkdir()
    packed.rename(packed.parent / "vader" / ARCHIVE)
    monkeypatch.setattr(vader, "sha256_file", lambda _: SHA256)
    with pytest.raises(AssetAltered, match="holds 4 rated texts; 23703 were expected"):
        fetch_vader(packed.parent)
    assert not (packed.parent / "vader" / "vader.jsonl").exists()


@pytest.mark.slow
def test_the_texts_are_the_ones_we_know() -> None:
    home = Path(os.environ.get("PRIORFLOW_HOME", Path(__file__).parents[2] / ".priorflow"))
    found = load_vader(fetch_vader(home / "assets"))
    assert found == sorted(found)
    assert len({(r.domain, r.id) for r in found}) == len(found) == 23_703
    assert Counter((r.domain, r.label) for r in found) == {
        ("tweets", "negative"): 1062,
        ("tweets", "neutral"): 838,
        ("tweets", "positive"): 2300,
        ("products", "negative"): 1218,
        ("products", "neutral"): 765,
        ("products", "positive"): 1725,
        ("films", "negative"): 5061,
        ("films", "neutral"): 562,
        ("films", "positive"): 4982,
        ("editorials", "negative"): 1688,
        ("editorials", "neutral"): 2402,
        ("editorials", "positive"): 1100,
    }
    assert all(0 < len(r.text) <= MAX_CHARS and "\0" not in r.text for r in found)
