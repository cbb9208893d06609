"""Every family, and one that the project does not name, on a stream: learned, continued, derived again."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from posterior.families import FAMILIES
from priorflow.config import ConfigError
from priorflow.console import Silent
from priorflow.learning import family_spec
from priorflow.replay import verify
from priorflow.run import execute
from tests.app.streams import archived, small_settings, small_stream

NAMES = [*FAMILIES, "examples.row_gaussian:RowGaussian"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archived(small_stream(), tmp_path_factory.mktemp("archive"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stream_is_learned_and_derived_again_bit_for_bit(name: str, archive: Path, tmp_path: Path) -> None:
    settings = small_settings(tmp_path, archive, **{"family.name": name})
    for _ in range(2):  # stopped half-way, and gone on
        execute(settings, until_end=True, max_windows=2, console=Silent())
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    rows = ledger.history("main")
    ledger.close()
    assert [s.kind for s in rows] == ["root", *["learned"] * 4]
    assert all(a.posterior != b.posterior for a, b in itertools.pairwise(rows))
    assert rows[-1].report["accuracy"] > 0.9
    verdicts = verify(settings, chain="main", first=None, last=None, source=None, console=Silent())
    assert [same for _, _, same in verdicts] == [True] * 4


def test_a_family_of_the_user_s_own_takes_options_like_any_other(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, None, **{"family.name": NAMES[-1], "family.sd_head": 0.2})
    spec = family_spec(settings)
    assert (spec.name, spec.options["sd_head"]) == (NAMES[-1], 0.2)
    wrong = small_settings(tmp_path, None, **{"family.name": NAMES[-1], "family.sd_haed": 0.2})
    with pytest.raises(ConfigError, match="did you mean 'sd_head'"):
        family_spec(wrong)


def test_options_that_make_no_belief_are_told(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, None, **{"family.name": "monteclora", "family.spare": 1.0})
    with pytest.raises(ConfigError, match="family: spare must be at least 2"):
        family_spec(settings)


@pytest.mark.parametrize("name", ["examples.row_gaussian:Missing", "no.such.module:Family"])
def test_a_family_that_cannot_be_imported_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"family.name: family '{name}' cannot be imported"):
        family_spec(small_settings(tmp_path, None, **{"family.name": name}))
