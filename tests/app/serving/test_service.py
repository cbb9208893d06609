"""A server over a chain that was really learned: it follows the log, outlives an outage, starts in one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from posterior.snapshot import Snapshot
from priorflow.case import CASE
from priorflow.config import ConfigError, Settings
from priorflow.console import Silent
from priorflow.learning import model_spec
from priorflow.run import execute
from priorflow.serving.champions import Wanted
from priorflow.serving.following import OnThisMachine
from priorflow.serving.service import Service, opened
from priorflow.serving.version import Version
from tests.app.histories import history
from tests.app.streams import archived, real_settings, small_stream
from trainers.abstention import Abstention
from trainers.model import AdaptedModel

pytestmark = pytest.mark.slow
LIMIT_S = 120  # a shadow loads at the lowest priority


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which four windows were learned and nobody was promoted."""
    folder = tmp_path_factory.mktemp("served")
    archived(small_stream(), folder / "stream")
    execute(settings_in(folder, **{"gate.enabled": False}), until_end=True, console=Silent())
    return folder


def settings_in(folder: Path, **more: Any) -> Settings:
    return real_settings(folder / "home", folder / "stream", **{"serve.poll": "20ms", **more})


@pytest.fixture
def here(learned: Path, tmp_path: Path) -> Path:
    shutil.copytree(learned, tmp_path / "here")
    return tmp_path / "here"


def windows(settings: Settings) -> list[Snapshot]:
    return [row for row in history(settings) if row.kind == "learned"]


def promote(settings: Settings, sha: str) -> None:
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    ledger.decide("main", at_ms=1, actor="test", action="promote", snapshot=sha, evidence={})
    ledger.close()


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[Service, TestClient]]:
    with opened(settings, Silent()) as service:
        yield service, TestClient(service.app)


def until(wanted: Any, read: Any) -> None:
    deadline = time.monotonic() + LIMIT_S
    while read() != wanted:
        assert time.monotonic() < deadline, f"{read()} is not {wanted}"
        time.sleep(0.01)


def until_not(unwanted: Any, read: Any) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while (found := read()) == unwanted:
        assert time.monotonic() < deadline, f"it stays {unwanted}"
        time.sleep(0.01)
    return found


def snapshot_of(client: TestClient) -> str:
    said = client.post("/predict", json={"text": "win cheap cash offer now"})
    return str(said.json().get("snapshot"))


def test_it_follows_the_log_there_and_back(here: Path) -> None:
    settings = settings_in(here)
    first, *_, last = windows(settings)
    with serving(settings) as (_, client):
        assert client.get("/readyz").status_code == 503
        for row in (first, last, first):
            promote(settings, row.sha)
            until(row.sha, lambda: snapshot_of(client))
        body = client.post("/predict", json={"text": "kernel module will not boot"}).json()
        assert set(body["probabilities"]) == {"linux", "money"}
        assert body["risk"] == settings.serve.risk


def test_answers_are_the_same_whoever_asks_beside_and_however_many_champions_pass(here: Path) -> None:
    """Every answer is what the version that it names says of this text, to the last bit."""
    settings = settings_in(here, **{"serve.max_waiting": 10_000, "serve.max_wait": "60s"})
    texts = [f"{words} {i}" for i, words in enumerate(["kernel boots", "cash offer now", "what is this"] * 3)]
    rows = windows(settings)
    alone: dict[tuple[str, str], Any] = {}
    for row in rows:
        promote(settings, row.sha)
        with serving(settings) as (_, client):
            for text in texts:
                alone[row.sha, text] = numbers(client.post("/predict", json={"text": text}).json())
    seen: list[str] = []
    with serving(settings) as (_, client):
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                told = client.post("/predict", json={"events": [{"text": t} for t in texts]})
                assert told.status_code == 200
                answers = told.json()["answers"]
                assert len({a["snapshot"] for a in answers}) == 1
                for text, answer in zip(texts, answers, strict=True):
                    assert numbers(answer) == alone[answer["snapshot"], text]
                seen.append(answers[0]["snapshot"])

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for turn in range(12):
            sha = rows[turn % len(rows)].sha
            promote(settings, sha)
            until(sha, lambda: client.get("/readyz").json()["snapshot"])
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert len(set(seen)) > 1


def numbers(answer: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in answer.items() if k not in {"event_id", "prediction_id"}}


def test_in_an_outage_the_last_good_version_answers_also_after_a_restart(here: Path) -> None:
    settings = settings_in(here)
    row = windows(settings)[-1]
    promote(settings, row.sha)
    with serving(settings) as (_, client):
        before = numbers(client.post("/predict", json={"text": "cash"}).json())
    ledger, away = here / "home" / "ledger.db", here / "away.db"
    ledger.rename(away)
    with serving(settings) as (_, client):
        assert numbers(client.post("/predict", json={"text": "cash"}).json()) == before
        ready = client.get("/readyz").json()
        assert ready["by"] == "last good"
        assert "no ledger" in ready["trouble"]
        away.rename(ledger)
        until("decision log", lambda: client.get("/readyz").json()["by"])


def test_a_ledger_of_an_older_release_is_not_migrated_by_a_server(here: Path) -> None:
    """It says who does that, on the page and to who decides there, and the last good version answers."""
    settings = settings_in(here, **{"serve.decision_key": "k3y"})
    promote(settings, windows(settings)[-1].sha)
    with serving(settings):
        pass
    file = here / "home" / "ledger.db"
    with closing(sqlite3.connect(file)) as ledger, ledger:
        ledger.execute("UPDATE alembic_version SET version_num = '0000'")
    with serving(settings) as (_, client):
        ready = client.get("/readyz").json()
        assert ready["by"] == "last good"
        assert "`priorflow run`" in ready["trouble"]
        assert "revision 0000" in client.get("/").text
        key = {"authorization": "Bearer k3y"}
        refused = client.post("/rollback", json={"reason": "a test"}, headers=key)
        assert refused.status_code == 422
        assert "`priorflow run`" in refused.json()["detail"]
    with closing(sqlite3.connect(file)) as ledger:
        assert ledger.execute("SELECT version_num FROM alembic_version").fetchone() == ("0000",)


def test_a_rule_that_was_kept_is_not_used_for_another_risk(here: Path) -> None:
    settings = settings_in(here)
    promote(settings, windows(settings)[-1].sha)
    with serving(settings):
        pass
    (here / "home" / "ledger.db").rename(here / "away.db")
    for risk, said in ((0.1, 0.1), (0.3, 0.3), (None, None)):
        with serving(settings_in(here, **{"serve.risk": risk})) as (_, client):
            answer = client.post("/predict", json={"text": "win cheap cash offer now"}).json()
            assert answer["risk"] == said
            assert answer["abstain"] is (risk == 0.3)  # for which nothing was ever shown


def test_a_threshold_is_chosen_once_the_ledger_is_back_and_what_is_withheld_till_then_is_told(
    here: Path,
) -> None:
    settings = settings_in(here)
    promote(settings, windows(settings)[-1].sha)
    with serving(settings):
        pass
    ledger, away = here / "home" / "ledger.db", here / "away.db"
    ledger.rename(away)
    with serving(settings_in(here, **{"serve.risk": 0.3})) as (_, client):
        assert withheld(client)
        assert "every answer is withheld" in client.get("/readyz").json()["trouble"]
        away.rename(ledger)
        until(False, lambda: withheld(client))
        until(None, lambda: client.get("/readyz").json()["trouble"])
    assert kept(here)["rule"]["risk"] == 0.3


def withheld(client: TestClient) -> bool:
    return bool(client.post("/predict", json={"text": "win cheap cash offer now"}).json()["abstain"])


def kept(here: Path) -> Any:
    return json.loads((here / "home/serving/main/serving.json").read_text(encoding="utf-8"))


def test_an_alias_in_an_outage_answers_by_the_threshold_that_was_kept_and_takes_none_away(
    here: Path,
) -> None:
    settings = settings_in(here)
    row, other = windows(settings)[-1], windows(settings)[-2]
    promote(settings, row.sha)
    with serving(settings):
        pass
    before = kept(here)
    (here / "home" / "ledger.db").rename(here / "away.db")
    for risk, named, known in ((0.1, row, True), (0.3, row, False), (0.1, other, False), (None, row, True)):
        version = by_alias(settings_in(here, **{"serve.risk": risk}), named)
        assert version.provisional is not known
        if risk == 0.1 and known:
            assert version.rule == Abstention(**before["rule"])
        assert kept(here) == before
    shutil.rmtree(here / "home/serving")
    assert by_alias(settings, other).provisional
    assert kept(here)["snapshot"] == other.sha  # better than nobody


def by_alias(settings: Settings, row: Snapshot) -> Version:
    """Have a version that only the registry names take over."""
    places = OnThisMachine(settings, AdaptedModel(model_spec(settings)))
    posterior = open_blobs(settings.blobs_url).get(row.posterior)
    wanted = Wanted(snapshot=row, posterior=lambda: posterior, by="alias", name="7")
    version = places.ready(wanted, posterior)
    places.keep(wanted, posterior, version)
    places.close()
    return version


def test_a_damaged_champion_does_not_take_over(here: Path) -> None:
    settings = settings_in(here)
    good, bad = windows(settings)[:2]
    promote(settings, good.sha)
    with serving(settings) as (_, client):
        blob = next((here / "home" / "blobs").rglob(f"*{bad.posterior}*"))
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        promote(settings, bad.sha)
        until(True, lambda: "cannot take over" in str(client.get("/readyz").json()["trouble"]))
        assert snapshot_of(client) == good.sha


def test_other_settings_than_the_chain_s_are_told(here: Path) -> None:
    settings = settings_in(here, **{"learn.lr": 0.07})
    promote(settings, windows(settings)[0].sha)
    with serving(settings) as (service, client):
        assert client.get("/readyz").status_code == 503
        assert "other settings" in str(service.watcher.standing.trouble)


def judged(settings: Settings, sha: str) -> None:
    """Write the line of a gate that judged a candidate and waits."""
    ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
    ledger.decide("main", at_ms=1, actor="gate", action="wait", snapshot=sha, evidence={CASE: {}})
    ledger.close()


def test_the_candidate_is_asked_beside_and_followed(here: Path) -> None:
    """What a server with a shadow answers is what one without says, to the last bit."""
    plain = settings_in(here)
    first, second, *_, last = windows(plain)
    promote(plain, first.sha)
    with serving(plain) as (_, client):
        alone = numbers(client.post("/predict", json={"text": "cash offer", "id": "m1"}).json())
    settings = settings_in(here, **{"serve.shadow": "candidate"})
    with serving(settings) as (service, client):
        shadow = service.shadow
        assert shadow is not None
        assert "no candidate" in str(until_not(None, lambda: shadow.standing.trouble))
        for candidate in (second, last):
            judged(settings, candidate.sha)
            until(candidate.sha, lambda: shadow.standing.snapshot)
            said = client.post("/predict", json={"text": "cash offer", "id": "m1"}).json()
            assert numbers(said) == alone
            until((candidate.sha, 1), lambda: (shadow.standing.sums.shadow, shadow.standing.sums.events))
        assert f'shadow="{last.sha[:12]}"' in client.get("/metrics").text
    rows = [json.loads(line) for line in (here / "home/serving/main/shadow.jsonl").read_text().splitlines()]
    assert [row["shadow"]["snapshot"] for row in rows] == [second.sha, last.sha]


def test_a_shadow_that_cannot_be_had_is_told_and_answers_go_on(here: Path) -> None:
    settings = settings_in(here, **{"serve.shadow": 7})  # nothing is published
    promote(settings, windows(settings)[0].sha)
    with serving(settings) as (service, client):
        shadow = service.shadow
        assert shadow is not None
        until("no version 7", lambda: shadow.standing.trouble)
        assert client.post("/predict", json={"text": "cash offer"}).status_code == 200
        assert client.get("/readyz").json()["trouble"] is None


def test_a_model_of_tokens_is_refused(here: Path) -> None:
    with (
        pytest.raises(ConfigError, match="gives no class"),
        opened(settings_in(here, **{"model.objective": "tokens"}), Silent()),
    ):
        pass


def test_the_command_answers_and_ends_when_told(here: Path) -> None:
    settings = settings_in(here)
    promote(settings, windows(settings)[-1].sha)
    said = settings.model_dump(include={"source", "home"}, mode="json")
    sets = {**said, "window.size": 30, "model.max_tokens": 16, "model.rank": 2, "learn.epochs": 1,
            "learn.draws": 2, "learn.beta_sample": 8, "mlflow.enabled": False}  # fmt: skip
    command = [sys.executable, "-m", "priorflow", "serve", "--port", "0", "--json"]
    for name, value in sets.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert process.stdout is not None
        told = next(line for line in map(json.loads, process.stdout) if line["event"] == "serving")
        request = urllib.request.Request(
            f"http://127.0.0.1:{told['port']}/predict",
            data=json.dumps({"id": "m1", "text": "cash offer"}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            assert json.load(response)["snapshot"] == windows(settings)[-1].sha
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.communicate()
