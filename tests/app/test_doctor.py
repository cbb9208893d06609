from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from posterior.snapshot import Chain, LedgerUnavailable
from priorflow import doctor
from priorflow.cli import call
from priorflow.config import Settings, load
from priorflow.exit_codes import ExitCode
from priorflow.findings import Finding, examine, worst
from priorflow.learning import learning_settings
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, root


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("PRIORFLOW_MODEL__ENCODER", str(encoder))


def begin(settings: Settings) -> str:
    """Begin the chain of these settings; return the sha of its root."""
    blobs = open_blobs(settings.blobs_url)
    ledger = open_ledger(settings.ledger_url, blobs)
    learning = learning_settings(settings)
    ledger.create(Chain(name="main", seed=settings.chain.seed, settings=learning))
    first = root(blobs)
    ledger.commit(ledger.acquire("main", owner=OWNER, ttl_s=1), first, CIRCUMSTANCE)
    ledger.close()
    return first.posterior


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in findings}


def test_where_nothing_was_begun_nothing_is_wrong(tmp_path: Path) -> None:
    settings = load()
    for check in (doctor.python, doctor.ledger, doctor.blobs, doctor.encoder):
        assert worst(examine(settings, check, "x")) is ExitCode.OK
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder"]


def test_a_chain_with_the_same_settings_is_well() -> None:
    begin(load())
    assert verdicts(examine(load(), doctor.ledger, "ledger")) == {"ledger": "ok"}
    assert verdicts(examine(load(), doctor.blobs, "blobs")) == {"blobs": "ok"}


def test_other_settings_than_the_chain_was_begun_with_are_named() -> None:
    begin(load())
    findings = examine(load(overrides={"learn.lr": 0.1}), doctor.ledger, "ledger")
    assert findings[-1].found == "learn.lr: 0.1, was 0.05"
    assert worst(findings) is ExitCode.USAGE


def test_a_damaged_head_is_found() -> None:
    sha = begin(load())
    (Path(load().blobs_url) / sha[:2] / sha).unlink()
    findings = examine(load(), doctor.ledger, "ledger")
    assert worst(findings) is ExitCode.LOST
    assert sha in findings[0].found


def test_a_missing_encoder_is_found() -> None:
    findings = examine(load(overrides={"model.encoder": "nowhere"}), doctor.encoder, "encoder")
    assert worst(findings) is ExitCode.USAGE
    assert "holds no weights" in findings[0].found


@pytest.mark.mlflow
def test_the_registry_is_asked_and_its_password_not_repeated(tmp_path: Path) -> None:
    place = tmp_path / "mlflow.db"
    place.touch()
    settings = load(overrides={"mlflow.tracking_uri": f"sqlite:///{place}"})
    (finding,) = examine(settings, doctor.registry, "mlflow")
    assert (finding.verdict, "no alias yet" in finding.found) == ("ok", True)
    away = load(overrides={"mlflow.tracking_uri": "http://me:hunter2@127.0.0.1:1"})
    (finding,) = examine(away, doctor.registry, "mlflow")
    assert (finding.verdict, finding.status) == ("fail", ExitCode.UNREACHABLE)
    assert "hunter2" not in finding.found


def test_too_many_threads_are_a_warning() -> None:
    settings = load(overrides={"learn.workers": 500})
    assert verdicts(examine(settings, doctor.python, "python"))["cores"] == "warn"


def test_what_a_check_raises_is_a_finding() -> None:
    def down(settings: Settings) -> Iterator[Finding]:
        yield Finding("first", "ok", settings.chain.name)
        msg = "the ledger\ncannot be reached"
        raise LedgerUnavailable(msg)

    findings = examine(load(), down, "ledger")
    assert [f.verdict for f in findings] == ["ok", "fail"]
    assert findings[1].found == "the ledger cannot be reached"
    assert worst(findings) is ExitCode.UNREACHABLE


def test_the_first_failure_decides_the_exit_status() -> None:
    findings = [
        Finding("a", "warn", "", status=ExitCode.BUG),
        Finding("b", "fail", "", status=ExitCode.LOST),
        Finding("c", "fail", "", status=ExitCode.UNREACHABLE),
    ]
    assert worst(findings) is ExitCode.LOST


def test_the_command_tells_all_and_fails_where_something_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = call(["doctor", "--set", "model.encoder=nowhere"])
    found: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = {row["what"]: row["verdict"] for row in found if row["event"] == "finding"}
    assert status != ExitCode.OK
    assert told["encoder"] == "fail"
    assert told["python"] == "ok"
    assert told["blobs"] == "ok"
