from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from priorflow.config import ConfigError, load
from priorflow.learning import differences, family_spec, learn_spec, learning_settings, model_spec
from priorflow.rules import bounds
from priorflow.sections_gate import GateSettings
from stream.plan import sha256_json
from trainers.bounds import Bounds


@pytest.fixture(autouse=True)
def _small_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "encoder", b"weights")
    monkeypatch.setenv("PRIORFLOW_MODEL__ENCODER", str(tmp_path / "encoder"))


def folder(path: Path, weights: bytes) -> str:
    path.mkdir()
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text("{}")
    return str(path)


def learning(**overrides: object) -> dict[str, object]:
    return learning_settings(load(overrides={k.replace("__", "."): v for k, v in overrides.items()}))


@pytest.mark.parametrize(
    "overrides",
    [
        {"chain__seed": 2},
        {"kafka__topics__events": "mails"},
        {"records__out_of_order": "2h"},
        {"records__max_classes": 3},
        {"records__clock__max_ahead": "1d"},
        {"records__format": "mapped"},
        {"window__size": 3},
        {"window__progress_every": 3},
        {"model__rank": 4},
        {"model__dtype": "bfloat16"},
        {"model__parts": ["lora", "prefix"]},
        {"model__pooling": "last"},
        {"model__objective": "answer"},
        {"model__objective": "tokens"},
        {"family__name": "point"},
        {"family__b": "frozen"},
        {"learn__lr": 0.1},
        {"learn__draws": 3},
        {"learn__kl_schedule": "cyclic"},
        {"learn__pi_new": 0.02},
        {"learn__beta": 1.0},
    ],
)
def test_what_changes_the_belief_changes_the_hash(overrides: dict[str, object]) -> None:
    assert sha256_json(learning(**overrides)) != sha256_json(learning())


@pytest.mark.parametrize(
    "overrides",
    [
        {"kafka__bootstrap": "other:9092"},
        {"kafka__topics__dead_letters": "elsewhere"},
        {"home": "elsewhere"},
        {"chain__name": "other"},
        {"source": "archive:mails.jsonl"},
        {"records__idle": "1s"},
        {"records__breaker__run": 3},
        {"records__mapping__text": "/body"},  # not read with cloudevents
        {"learn__workers": 2},
        {"learn__threads": 2},
        {"learn__world": 2},
        {"ledger__url": "postgresql://me:secret@db/flow"},
        {"mlflow__enabled": False},
        {"gate__max_ece": 0.5},
        {"family__sd_up": 0.02},  # the default, said aloud
        {"model__parts": ["lora"]},
        {"model__dtype": "float32"},
        {"model__adapter_size": 3},  # of a part that is absent
        {"model__prefix_sites": "elsewhere"},
        {"model__ask": " is"},
        {"learn__token_correlation": 1.0},
    ],
)
def test_where_and_how_it_runs_does_not(overrides: dict[str, object]) -> None:
    assert sha256_json(learning(**overrides)) == sha256_json(learning())


def test_the_settings_of_a_part_count_where_it_is_present() -> None:
    hybrid = {"model__parts": ["lora", "adapter"]}
    assert learning(**hybrid) == learning(model__parts=["adapter", "lora"])
    assert learning(**hybrid, model__adapter_size=3) != learning(**hybrid)
    assert learning(**hybrid, model__prefix_length=3) == learning(**hybrid)
    alone: dict[str, object] = {"model__parts": ["adapter"]}
    assert learning(**alone, model__rank=3) == learning(**alone)


def test_the_settings_of_an_objective_count_where_it_is_chosen() -> None:
    answer: dict[str, object] = {"model__objective": "answer"}
    assert learning(**answer, model__ask=" is") != learning(**answer)
    assert learning(**answer, model__pooling="last") == learning(**answer)
    tokens: dict[str, object] = {"model__objective": "tokens"}
    assert learning(**tokens, learn__token_correlation=1.0) != learning(**tokens)
    assert learning(**tokens, model__ask=" is", model__pooling="last") == learning(**tokens)


def test_the_order_of_the_vocabulary_means_nothing() -> None:
    one = learning(records__label_vocabulary=["a", "b"])
    assert one == learning(records__label_vocabulary=["b", "a"])


def test_the_encoder_counts_by_its_bytes_not_its_place(tmp_path: Path) -> None:
    one, same, other = (
        sha256_json(learning(model__encoder=folder(tmp_path / name, weights)))
        for name, weights in (("one", b"1"), ("same", b"1"), ("other", b"2"))
    )
    assert one == same != other
    (tmp_path / "same" / "tokenizer.json").write_text("{}")
    assert sha256_json(learning(model__encoder=str(tmp_path / "same"))) != one


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"family.name": "blub"}, "family.name: there is no 'blub'; did you mean 'blob'"),
        ({"family.sd_dwn": 1}, "family.sd_dwn: 'blob' has no such option; did you mean 'sd_down'"),
        ({"family.b": "frozn"}, "family.b: "),
        ({"family.sd_up": "wide"}, "family.sd_up: "),
        ({"model.encoder": "package:no_such_package/model"}, "no_such_package"),
        ({"model.encoder": "no/such/folder"}, "holds no weights"),
        ({"model.warm_start": "no/such/folder"}, "holds no weights"),
    ],
)
def test_what_only_the_model_can_judge_is_refused_too(overrides: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        learning_settings(load(overrides=overrides))


def test_options_from_the_environment_become_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORFLOW_FAMILY__SD_DOWN", "0.5")
    assert family_spec(load()).options["sd_down"] == 0.5


def test_specs_carry_the_settings() -> None:
    settings = load(overrides={"learn.train_draws": 2, "learn.draws": 7, "model.rank": 4})
    learn = learn_spec(settings)
    assert (learn.schedule.draws, learn.draws, learn.beta) == (2, 7, None)
    assert model_spec(settings).rank == 4
    assert model_spec(settings).parts == ("lora",)


def test_differences_are_named() -> None:
    told = list(differences(learning(learn__lr=0.1), learning()))
    assert told == ["learn.lr: 0.1, was 0.05"]


def test_the_section_of_the_gate_is_the_bounds_field_by_field() -> None:
    # Bounds alone know nobody who measures; a run has a clean process for that.
    assert bounds(load()) == Bounds(max_p99_ms=2_000.0, smoke=True)
    fields = set(asdict(Bounds()))
    assert set(GateSettings.model_fields) - {"enabled", "rollback"} == fields
    told = load(overrides={"gate.alpha": 0.01, "gate.max_p99_ms": None, "gate.smoke": False})
    assert bounds(told) == Bounds(alpha=0.01)


@pytest.mark.parametrize("said", [{"gate.min_gain": 5.0}, {"gate.alpha": 0}, {"gate.max_ece": 1.5}])
def test_a_gate_that_makes_no_sense_is_refused(said: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        load(overrides=said)
