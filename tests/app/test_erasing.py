"""`priorflow erase` on a real chain on disk: every file is looked into, and the chain still proves itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.archive import ArchiveWriter, read_archive
from connectors.blobs import open_blobs
from connectors.lease import this_owner
from priorflow.cli import call
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.erasing import Request, erase, look
from priorflow.exit_codes import ExitCode
from priorflow.run import execute
from stream.prediction_id import prediction_id
from stream.record import RawRecord
from tests.app.histories import assert_accounts_balance, history, opened
from tests.app.streams import EVENTS, archived, small_settings, small_stream

pytestmark = pytest.mark.slow  # whole runs of the application

SECRET = "Ada Lovelace, 12 St James Square"
LEARNED, WAITS = "m26", "m91"  # the first waits behind window 1 and is learned in window 2
STEPS = [
    "before-erasure",
    "after-states",
    "after-erasure",
    "before-removal",
    "after-removal",
    "before-part",
    "after-part",
]


class Died(Exception):
    """The process is gone."""


def secretive(ids: tuple[str, ...]) -> list[RawRecord]:
    """Return the records of the small stream, some of whose events hold a person's name and address."""
    out = []
    for lane in small_stream(110).lanes.values():
        for raw in lane:
            headers, data = dict(raw.headers), json.loads(raw.value or b"{}")
            if headers.get("ce_id", b"").decode() in ids and "text" in data:
                value = json.dumps({**data, "text": f"{data['text']} {SECRET}"}).encode()
                out.append(RawRecord(raw.position, raw.timestamp_ms, raw.key, value, raw.headers))
            else:
                out.append(raw)
    return out


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three windows learned from an archive, and a second archive written meanwhile."""
    folder = tmp_path_factory.mktemp("learned")
    writer = ArchiveWriter(folder / "archive.jsonl", form="jsonl")
    writer.add(secretive((LEARNED, WAITS)))
    writer.flush()
    settings = small_settings(folder / "home", None, **{"gate.enabled": False})
    said = {
        "home": "home",
        "source": "archive:archive.jsonl",
        "archive": "kept",
        **settings.model_dump(include={"window", "model", "learn", "mlflow", "gate"}, exclude_unset=True),
    }
    (folder / "priorflow.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(said, default=str))))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        execute(load(folder / "priorflow.yaml"), until_end=True, max_windows=3, console=Silent())
    return folder


@pytest.fixture
def here(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(learned, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def settings_here(here: Path) -> Settings:
    return load(here / "priorflow.yaml")


def files_with(folder: Path, *words: str) -> list[str]:
    """Return every file below a folder that says one of these words; a Parquet part is read, not grepped."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data = repr(list(read_archive(path))).encode()
        if any(word.encode() in data for word in words):
            found.append(str(path.relative_to(folder)))
    return found


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert call(list(arguments)) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def only(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (line,) = [one for one in lines if one["event"] == event]
    return line


def test_no_file_holds_the_text_any_more(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_with(here, SECRET)
    assert any(name.startswith("home/blobs") for name in before)
    assert any(name.startswith("archive.jsonl") for name in before)
    assert any(name.startswith("kept") for name in before)
    said = told(capsys, "erase", "--event-id", LEARNED, "--event-id", WAITS, "--reason", "article 17")
    assert files_with(here, SECRET) == []
    assert files_with(here, f'"{LEARNED}"', f'"{WAITS}"') == []
    line = only(said, "erased")
    assert line["rows"] == {"main": history(settings_here(here))[-1].seq}
    assert len(line["archived"]) == 8  # two events and two labels, in two archives
    by = only(said, "learned_by")
    assert by["windows"] == [2]
    assert by["command"].startswith(f"priorflow unlearn --event-id {LEARNED} --event-id {WAITS} --into ")


def test_a_second_time_nothing_is_left_and_the_windows_are_still_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "erase", "--event-id", LEARNED)
    rows = history(settings_here(here))
    said = told(capsys, "erase", "--event-id", LEARNED)
    assert only(said, "nothing_left")["rows"] == {}
    assert only(said, "learned_by")["windows"] == [2]
    assert history(settings_here(here)) == rows


def test_looking_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    said = told(capsys, "erase", "--event-id", LEARNED, "--event-id", WAITS, "--dry-run")
    line = only(said, "erased")
    assert line["dry_run"]
    assert line["states"] > 0
    assert len(line["archived"]) == 8
    after = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert {p for p, data in before.items() if "ledger.db" not in p.name and after[p] != data} == set()
    assert files_with(here, SECRET)


def test_the_chain_goes_on_and_still_proves_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "erase", "--event-id", LEARNED, "--event-id", WAITS)
    told(capsys, "run", "--until-end")
    rows = history(settings_here(here))
    assert_accounts_balance(rows)
    assert rows[-1].counts["erased"] > 0
    assert files_with(here, SECRET) == []
    verified = told(capsys, "snapshots", "verify")[-1]
    assert (verified["faults"], verified["erased"] > 0) == (0, True)
    (by,) = [row.seq for row in rows if row.kind == "erased"]
    assert f"erased in part by row {by}" in verified["text"]
    said = told(capsys, "replay", "--verify")
    assert (said[-1]["differ"], said[-1]["erased"]) == ([], [2])
    assert f"what row {by} erased" in only(said, "erased")["text"]


def test_gone_back_over_an_erasure_every_row_has_a_verdict(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "erase", "--event-id", LEARNED)
    first = history(settings_here(here))[1].sha
    told(capsys, "promote", first, "--force", "--reason", "to begin with")
    told(capsys, "rollback", "--to", first, "--relearn", "--reason", "again")
    told(capsys, "run", "--until-end")
    (branch,) = [row for row in history(settings_here(here)) if row.kind == "branch"]
    verdicts = told(capsys, "replay", "--verify")[-1]
    assert (verdicts["differ"], verdicts["erased"]) == ([], [2])
    state = here / "home" / "blobs" / branch.stream_state[:2] / branch.stream_state
    waits = json.loads(state.read_bytes())["store"]["events"][0][0]
    told(capsys, "erase", "--event-id", waits)
    assert not state.exists()
    assert told(capsys, "replay", "--verify")[-1]["differ"] == []
    assert told(capsys, "snapshots", "verify")[-1]["faults"] == 0


def test_while_a_run_is_alive_it_is_refused_with_its_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(settings_here(here)) as ledger:
        fence = ledger.acquire("main", owner=this_owner(), ttl_s=60)
        capsys.readouterr()
        assert call(["erase", "--event-id", LEARNED]) == ExitCode.FENCED
        assert "chain main is held by pid" in capsys.readouterr().err
        ledger.release(fence)
    assert files_with(here, SECRET)


@pytest.mark.parametrize("step", STEPS)
def test_dying_between_any_two_steps_the_same_call_finishes(here: Path, step: str) -> None:
    settings, request = settings_here(here), Request(ids=(LEARNED, WAITS), chain="main")

    def crash(reached: str) -> None:
        if reached == step:
            raise Died

    with pytest.raises(Died):
        erase(settings, request, crash=crash)
    with opened(settings) as ledger:
        assert ledger.head("main") is not None
    assert_accounts_balance(history(settings))
    assert len(list(read_archive(here / "archive.jsonl"))) == 220
    erase(settings, request)
    assert files_with(here, SECRET, f'"{WAITS}"') == []
    assert sum(row.kind == "erased" for row in history(settings)) == 1
    assert not erase(settings, request).anything


def test_what_lies_about_from_a_dead_writer_goes_too(here: Path) -> None:
    """Half-written blobs and parts, and states of rows that never came to be."""
    settings = settings_here(here)
    blob = next(here / "home" / name for name in files_with(here / "home", SECRET))
    stray = here / "home" / "blobs" / "tmp" / "dead"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(blob.read_bytes()[:-20])
    (here / "kept" / "part-000009.tmp").write_text(SECRET)
    orphan = _orphan(here, blob)
    erase(settings, Request(ids=(LEARNED, WAITS), chain="main"))
    assert files_with(here, SECRET) == []
    assert not orphan.exists()


def _orphan(here: Path, blob: Path) -> Path:
    """Store a state that no row names, as a run does that dies before it commits."""
    data = json.loads(blob.read_bytes())
    data["index"] = 77
    sha = open_blobs(here / "home" / "blobs").put(json.dumps(data).encode())
    return here / "home" / "blobs" / sha[:2] / sha


def test_a_record_that_cannot_be_read_is_emptied_and_refused_as_it_was(here: Path) -> None:
    settings = settings_here(here)
    bad = archived_bad(here)
    erase(settings, Request(ids=(LEARNED,), chain="main", archives=(bad,)))
    assert files_with(bad, SECRET) == []


def archived_bad(here: Path) -> Path:
    log = small_stream(5)
    value = f'{{"event_id": "{LEARNED}", "text": "{SECRET}"'.encode()
    log.append((EVENTS, 0), value, headers=[("ce_id", b"x")])
    return archived(log, here / "bad", form="jsonl")


def test_what_the_demo_keeps_of_a_window_is_emptied(here: Path) -> None:
    members = here / "home" / "demo" / "members"
    members.mkdir(parents=True)
    (members / "1.json").write_text(
        json.dumps([{"event_id": LEARNED, "text": SECRET}, {"event_id": "other"}])
    )
    done = erase(settings_here(here), Request(ids=(LEARNED,), chain="main"))
    assert done.demo == 1
    assert json.loads((members / "1.json").read_text()) == [{"event_id": "other"}]


@pytest.mark.parametrize(
    ("held", "goes"),
    [(json.dumps({"text": "Ada", "id": LEARNED}), 1), ('{"text": "Ad', 1), ('{"text": "Bob", "id": "b"}', 0)],
)
def test_the_request_that_the_demo_showed_goes_if_it_is_theirs(here: Path, held: str, goes: int) -> None:
    asked = here / "home" / "demo" / "asked.json"
    asked.parent.mkdir(exist_ok=True)
    asked.write_text(held, encoding="utf-8")
    settings, request = settings_here(here), Request(ids=(LEARNED,), chain="main")
    assert look(settings, request).demo == erase(settings, request).demo == goes
    assert asked.exists() == (not goes)


def test_half_a_window_that_a_killed_demo_left_goes_too(here: Path) -> None:
    members = here / "home" / "demo" / "members"
    members.mkdir(parents=True)
    (members / "2.tmp").write_text(f'[{{"event_id": "{LEARNED}", "text": "{SECRET}')
    erase(settings_here(here), Request(ids=(LEARNED,), chain="main"))
    assert files_with(members, SECRET, LEARNED) == []


def test_what_a_server_wrote_down_of_a_shadow_goes_too(here: Path) -> None:
    folder = here / "home" / "serving" / "main"
    folder.mkdir(parents=True)
    theirs, others = (
        json.dumps({"prediction_id": prediction_id(event, "a" * 64)}) + "\n" for event in (LEARNED, "other")
    )
    (folder / "shadow.jsonl").write_text(others + theirs + others)
    (folder / "shadow.before.jsonl").write_text(theirs + others + theirs[:20])
    request = Request(ids=(LEARNED,), chain="main")
    assert look(settings_here(here), request).compared == 3
    assert erase(settings_here(here), request).compared == 3
    assert (folder / "shadow.jsonl").read_text() == others * 2
    assert (folder / "shadow.before.jsonl").read_text() == others
    assert not erase(settings_here(here), request).anything


def test_what_a_dead_server_left_of_a_shadow_goes_and_nobody_else_s_line_does(here: Path) -> None:
    """A line may end inside a letter, and a class be called what others take for the end of a line."""
    folder = here / "home" / "serving" / "main"
    folder.mkdir(parents=True)
    theirs, others = (
        json.dumps(
            {"prediction_id": prediction_id(event, "a" * 64), "label": "na\u2028\x85\u00efve"},
            ensure_ascii=False,
        ).encode()
        for event in (LEARNED, "other")
    )
    torn = theirs[: theirs.index("\u00ef".encode()) + 1]
    (folder / "shadow.jsonl").write_bytes(others + b"\n" + theirs + b"\n" + torn)
    (folder / "shadow.tmp").write_bytes(theirs)
    (folder / "shadow.before.tmp").write_bytes(torn)
    request = Request(ids=(LEARNED,), chain="main")
    assert look(settings_here(here), request).compared == 2
    assert erase(settings_here(here), request).compared == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"shadow.jsonl": others + b"\n"}


KILLED = """
import os, signal, sys
from pathlib import Path
from priorflow.config import load
from priorflow.erasing import Request, erase

def crash(step):
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

erase(load(Path("priorflow.yaml")), Request(ids=("m26", "m91"), chain="main"), crash=crash)
"""


@pytest.mark.parametrize("step", ["after-erasure", "after-removal", "before-part"])
def test_killed_for_real_its_lease_is_free_and_the_next_call_finishes(here: Path, step: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, step],
        cwd=here,
        env=_environment(root),
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()
    begun = time.monotonic()
    erase(settings_here(here), Request(ids=(LEARNED, WAITS), chain="main"))
    assert time.monotonic() - begun < 25  # no waiting for a lease of a minute
    assert files_with(here, SECRET) == []


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root)}
