"""Decisions told outside: by a run, which nothing at the receiver's end may hold up, and by the commands."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from connectors.decision_events import worth_telling
from connectors.webhook import SIGNATURE, signature
from priorflow.cli import call
from priorflow.config import ConfigError, Settings, load
from priorflow.console import JsonLines, Silent
from priorflow.exit_codes import ExitCode
from priorflow.look import look
from priorflow.page import troubles
from priorflow.run import execute
from tests.app.histories import history, opened
from tests.app.streams import archived, small_settings, small_stream
from tests.connectors.receiver import Receiver, receiving


def toldable(settings: Settings) -> list[str]:
    with opened(settings) as ledger:
        log = ledger.decisions("main")
    return [line.hash for line in log if worth_telling(log, line.seq)]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archived(small_stream(), tmp_path_factory.mktemp("told") / "stream")


def hooked(home: Path, stream: Path, receiver: Receiver, **more: Any) -> Settings:
    return small_settings(home, stream, **{"decisions.webhook": receiver.url, **more})


@pytest.mark.slow
def test_a_run_tells_what_was_decided_signed(tmp_path: Path, stream: Path) -> None:
    with receiving() as receiver:
        settings = hooked(tmp_path, stream, receiver, **{"decisions.webhook_secret": "k3y"})
        execute(settings, until_end=True, console=Silent())
    assert [e["id"] for e in receiver.events] == toldable(settings)
    assert "io.priorflow.decision.promoted" in {e["type"] for e in receiver.events}
    for body, headers in receiver.posts:
        assert headers[SIGNATURE.lower()] == signature(b"k3y", body)


@pytest.mark.slow
def test_a_receiver_that_is_away_changes_nothing_and_hears_it_later(
    tmp_path: Path, stream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("priorflow.run.ONCE_S", 0.3)
    plain = small_settings(tmp_path / "plain", stream)
    execute(plain, until_end=True, console=Silent())
    with receiving() as gone:
        pass
    settings = hooked(tmp_path / "hooked", stream, gone)
    out = io.StringIO()
    execute(settings, until_end=True, console=JsonLines(out))
    assert [row.sha for row in history(settings)] == [row.sha for row in history(plain)]
    said = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert said.count("not_telling") == 1
    assert "backlog" in said
    seen = look(settings, ask_kafka=False)
    assert seen is not None
    assert seen.place["waiting_to_tell"] == len(toldable(settings)) > 0
    (trouble,) = [line for line in troubles(seen, None) if "webhook" in line]
    assert "127.0.0.1 cannot be reached" in trouble
    assert "s3cret" not in trouble + out.getvalue()
    with receiving(gone.port) as back:
        execute(settings, until_end=True, console=Silent())
    assert [e["id"] for e in back.events] == toldable(settings)
    seen = look(settings, ask_kafka=False)
    assert seen is not None
    assert (seen.place["waiting_to_tell"], seen.place["tell_error"]) == (0, None)


@pytest.mark.slow
def test_the_commands_tell_at_once(
    tmp_path: Path, stream: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(tmp_path, stream, **{"gate.enabled": False})
    execute(settings, until_end=True, console=Silent())
    first, second = [row.sha for row in history(settings) if row.kind == "learned"][:2]
    with receiving() as receiver:
        sets = ["--set", f"home={tmp_path}", "--set", "mlflow.enabled=false"]
        monkeypatch.setenv("PRIORFLOW_DECISIONS__WEBHOOK", receiver.url)
        for sha in (first, second):
            assert call(["promote", sha, "--force", "--reason", "a test", *sets]) == ExitCode.OK
        assert call(["rollback", "--reason", "back", *sets]) == ExitCode.OK
        capsys.readouterr()
        assert call(["status", "--json", *sets]) == ExitCode.OK
    assert [e["subject"] for e in receiver.events] == [first, second, first]
    assert receiver.events[-1]["data"]["evidence"]["reason"] == "back"
    told = json.loads(capsys.readouterr().out)
    assert (told["waiting_to_tell"], told["tell_error"]) == (0, None)


def test_what_is_shown_names_the_host_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORFLOW_DECISIONS__WEBHOOK_SECRET", "k3y")
    settings = load(None, overrides={"decisions.webhook": "https://hooks.example:8443/T0/s3cret?key=t0ken"})
    shown = settings.shown()["decisions"]
    assert shown["webhook"] == "https://hooks.example:8443/***"
    assert settings.decisions.secret() == "k3y"
    for secret in ("s3cret", "t0ken", "k3y"):
        assert secret not in json.dumps(shown) + repr(settings)
    monkeypatch.delenv("PRIORFLOW_DECISIONS__WEBHOOK_SECRET")
    (tmp_path / "key").write_text("from a file\n", encoding="utf-8")
    filed = load(None, overrides={"decisions.webhook_secret_file": str(tmp_path / "key")})
    assert filed.decisions.secret() == "from a file"
    assert load().decisions.secret() is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "https://"),
        ("https://", "https://"),
        ("https://host:99999/", "https://"),
        ("https://me:secret@host/", "webhook_secret"),
    ],
)
def test_an_address_that_is_no_webhook_is_refused_without_being_repeated(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        load(None, overrides={"decisions.webhook": url})
    assert "secret@" not in str(refused.value)
