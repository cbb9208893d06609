from __future__ import annotations

import importlib
import json
import pkgutil
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from posterior.snapshot import Snapshot
from posterior.tensors import to_bytes
from priorflow.cli import build, call
from priorflow.exit_codes import MEANING, ExitCode, code_for, known_errors
from stream.source import SourceUnavailable
from tests.connectors.chain_builder import OWNER, Writer, learned, progress

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def learned_tensors(writer: Writer, rows: int) -> Snapshot:
    tensors = {"mean/head": torch.full((rows, 3), float(rows)), "log_sd/head": torch.zeros(rows, 3)}
    row = learned(writer.blobs, writer.head, writer.begin())
    return writer.commit(replace(row, posterior=writer.blobs.put(to_bytes(tensors))), publish=["mlflow"])


@pytest.fixture
def chain(tmp_path: Path) -> list[Snapshot]:
    """Root, window 1, progress, window 2; window 1 is published and champion."""
    blobs = open_blobs(tmp_path / ".priorflow" / "blobs")
    ledger = open_ledger(f"sqlite:///{tmp_path}/.priorflow/ledger.db", blobs)
    writer = Writer.on_new_chain(ledger, blobs)
    line = [writer.head, learned_tensors(writer, 1)]
    line.append(writer.commit(progress(blobs, writer.head)))
    line.append(learned_tensors(writer, 2))
    ledger.published(line[1].sha, "mlflow", "1")
    ledger.decide("main", at_ms=1, actor="gate", action="promote", snapshot=line[1].sha, evidence={"n": 3})
    ledger.release(writer.fence)
    ledger.close()
    return line


def test_help_answers_at_once_and_names_every_exit_status() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "priorflow", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Its own work, 0.3 s: how long it waits for a busy machine says nothing of us.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    assert all(str(int(code)) in said and MEANING[code][:20] in said for code in ExitCode)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, priorflow.cli as c; c.call(['--help']);"
        "sys.exit(bool({'torch', 'pydantic', 'ray', 'mlflow', 'kafka', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def commands() -> list[str]:
    app = build()
    names = [str(command.name) for command in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        names += [f"{group.name} {c.name}" for c in group.typer_instance.registered_commands]
    return names


@pytest.mark.parametrize("name", commands())
def test_every_command_takes_the_common_options_and_is_documented(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*name.split(), "--help"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert all(option in said for option in ("--json", "--config", "--set", "--debug"))
    assert f"priorflow {name}" in (DOCS / "cli.md").read_text(encoding="utf-8")


def test_exit_statuses_are_documented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert all(f"| {int(code)} |" in page for code in ExitCode)


@pytest.mark.parametrize("name", known_errors())
def test_every_error_of_the_table_exists(name: str) -> None:
    module, _, kind = name.rpartition(".")
    error = getattr(__import__(module, fromlist=[kind]), kind)
    assert code_for(error("x")) is not ExitCode.BUG


def test_an_unknown_error_is_our_bug() -> None:
    assert code_for(ZeroDivisionError()) is ExitCode.BUG


def test_wrong_configuration_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["config", "show", "--set", "kafka.bootstap=x"]) == ExitCode.USAGE
    told = json.loads(capsys.readouterr().err)
    assert told["exit"] == 2
    assert "did you mean 'bootstrap'" in told["text"]


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    call(["config", "show", "--set", "a.b=x", "--debug"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["replay"], ["replay", "--verify", "--into", "x"], ["snapshots", "show"]]
)
def test_a_wrong_command_line_is_status_2(arguments: list[str]) -> None:
    assert call(arguments) == ExitCode.USAGE


def test_common_options_count_before_and_after_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(["--set", "window.size=7", "config", "show", "--set", "learn.epochs=2"]) == 0
    (shown,) = lines(capsys)
    assert (shown["window"]["size"], shown["learn"]["epochs"]) == (7, 2)


def test_config_show_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["config", "show", "--set", "window.size=7"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "shown.yaml").write_text(first)
    assert call(["config", "show", "--config", "shown.yaml"]) == 0
    assert capsys.readouterr().out == first


def test_config_schema_is_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["config", "schema"]) == 0
    (schema,) = lines(capsys)
    assert schema["properties"]["kafka"]


def test_reading_makes_no_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["snapshots", "ls"]) == ExitCode.USAGE
    assert "there is no ledger" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_snapshots_ls(chain: list[Snapshot], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["snapshots", "ls"]) == 0
    rows = lines(capsys)
    assert [row["sha"] for row in rows] == [chain[0].sha, chain[1].sha, chain[3].sha]
    assert [row["version"] for row in rows] == [None, "1", None]
    assert [row["kl_nats"] for row in rows] == [None, 3.5, 3.5]
    assert call(["snapshots", "ls", "--all", "--last", "2"]) == 0
    assert [row["kind"] for row in lines(capsys)] == ["progress", "learned"]


@pytest.mark.usefixtures("chain")
def test_snapshots_ls_of_an_unknown_chain(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["snapshots", "ls", "--chain", "mian"]) == ExitCode.USAGE
    assert "there are: main" in capsys.readouterr().err


def test_snapshots_show_by_prefix(chain: list[Snapshot], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["snapshots", "show", chain[1].sha[:8]]) == 0
    (shown,) = lines(capsys)
    assert (shown["sha"], shown["parent"], shown["version"]) == (chain[1].sha, chain[0].sha, "1")
    assert shown["committed"] == "1970-01-01T00:00:01Z"
    assert call(["snapshots", "show", "ffffffff"]) == ExitCode.USAGE


def test_snapshots_diff(chain: list[Snapshot], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["snapshots", "diff", chain[1].sha, chain[3].sha]) == 0
    rows = lines(capsys)
    differs = {row["what"]: (row["before"], row["after"]) for row in rows if row["event"] == "differs"}
    assert differs["index"] == (1, 2)
    assert differs["counts.learned"] == (8, 16)
    assert differs["events[0]"] == (4, 11)
    moved = {row["site"]: row for row in rows if row["event"] == "moved"}
    assert moved["mean/head"] == {
        "event": "moved",
        "site": "mean/head",
        "rms": 1.0,
        "rows_gained": 1,
    }


def test_snapshots_verify(chain: list[Snapshot], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["snapshots", "verify"]) == 0
    assert lines(capsys)[-1]["snapshots"] == 4
    assert call(["snapshots", "verify", chain[3].sha]) == 0
    assert lines(capsys)[-1]["snapshots"] == 1


def spoil(tmp_path: Path, sha: str) -> None:
    path = tmp_path / ".priorflow" / "blobs" / sha[:2] / sha
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def test_snapshots_verify_finds_one_altered_byte(
    chain: list[Snapshot], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(tmp_path, chain[3].posterior)
    assert call(["snapshots", "verify"]) == ExitCode.LOST
    (fault,) = (line for line in lines(capsys) if line["event"] == "fault")
    assert fault["sha"] == chain[3].sha
    assert chain[3].posterior in fault["text"]


def test_snapshots_repair_sets_the_damaged_head_aside(
    chain: list[Snapshot], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(tmp_path, chain[3].posterior)
    assert call(["snapshots", "repair"]) == 0
    assert lines(capsys)[-1]["set_aside"] == [chain[3].sha]
    assert call(["snapshots", "verify"]) == 0
    assert call(["snapshots", "repair"]) == 0
    assert lines(capsys)[-1]["set_aside"] == []


@pytest.mark.usefixtures("chain")
def test_snapshots_repair_respects_the_lease(tmp_path: Path) -> None:
    ledger = open_ledger(
        f"sqlite:///{tmp_path}/.priorflow/ledger.db", open_blobs(tmp_path / ".priorflow" / "blobs")
    )
    ledger.acquire("main", owner=OWNER, ttl_s=60)
    ledger.close()
    assert call(["snapshots", "repair"]) == ExitCode.FENCED
    assert call(["snapshots", "repair", "--takeover"]) == 0


def test_status(chain: list[Snapshot], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["status", "--set", "kafka.bootstrap=127.0.0.1:1"]) == 0
    (told,) = lines(capsys)
    assert (told["head"], told["windows"], told["champion"]) == (chain[3].sha, 2, chain[1].sha)
    assert told["waiting_to_publish"] == 1
    assert told["positions"][0]["next"] == 11
    assert told["positions"][0]["lag"] is None


def test_an_interrupt_is_status_130(tmp_path: Path) -> None:
    """Ctrl-C while a command waits for a cluster that took the call but never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"kafka.bootstrap=127.0.0.1:{silent.getsockname()[1]}"
        # Whoever runs the tests in the background ignores SIGINT, and so would the command.
        heeding = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        heeding += "from priorflow.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", heeding, "dlq", "ls", "--set", address]
        with (
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
            ) as process,
            silent.accept()[0] as called,
        ):
            called.recv(1)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert json.loads(told.splitlines()[-1])["exit"] == 130


@pytest.mark.usefixtures("chain")
def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    command = f"{sys.executable} -m priorflow snapshots ls | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_fails_while_an_interrupt_is_handled_is_the_interrupt() -> None:
    def closing() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            msg = "the cluster did not answer while its client was closed"
            raise SourceUnavailable(msg)

    with pytest.raises(SourceUnavailable) as failed:
        closing()
    assert code_for(failed.value) is ExitCode.INTERRUPTED


def test_every_error_of_ours_has_a_status() -> None:
    """What reaches the command line is told apart; what is named here never does."""
    inside = {"OutOfStep", "Stop", "TooSlow", "Undelivered", "_Bad", "YamlError"}
    unmapped = [
        f"{module.__name__}.{name}"
        for module in our_modules()
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == module.__name__
        if name not in inside and code_for(kind.__new__(kind)) is ExitCode.BUG
    ]
    assert unmapped == []


def our_modules() -> Iterator[ModuleType]:
    for package in ("stream", "posterior", "trainers", "connectors", "priorflow"):
        folder = importlib.import_module(package).__path__
        for found in pkgutil.iter_modules(folder, prefix=f"{package}."):
            if not found.name.endswith(".__main__"):
                yield importlib.import_module(found.name)
