"""A chain whose versions are in a real MLflow: one by its number as a shadow, and a run that goes on."""

from __future__ import annotations

import json
import signal
from contextlib import closing

import pytest
from fastapi.testclient import TestClient

from connectors.decision_log import champion
from posterior.snapshot import Snapshot
from priorflow.case import CASE
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.exit_codes import ExitCode
from priorflow.opening import MLFLOW, registry
from priorflow.run import execute
from priorflow.serving.service import opened as serving
from tests.app.forked import forked
from tests.app.histories import history, opened
from tests.app.scored import decide, until
from tests.app.streams import archived, small_settings, small_stream

pytestmark = [pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Four windows are learned and published, and nobody was promoted."""
    archive, home = (tmp_path_factory.mktemp(name) for name in ("archive", "home"))
    more = {"mlflow.enabled": True, "gate.enabled": False, "serve.poll": "20ms"}
    settings = small_settings(home, archived(small_stream(), archive), **more)
    assert execute(settings, until_end=True, console=Silent()).published
    return settings


def windows(settings: Settings) -> list[Snapshot]:
    return [row for row in history(settings) if row.kind == "learned"]


def version_of(settings: Settings, row: Snapshot) -> str:
    with opened(settings) as ledger:
        version = ledger.reference(row.sha, MLFLOW)
    assert version is not None
    return version


def test_a_version_named_by_its_number_is_asked_beside_whoever_is_candidate(done: Settings) -> None:
    first, second, *_, last = windows(done)
    decide(done, "promote", last.sha)
    decide(done, "wait", second.sha, **{CASE: {"heard": 0}})
    number = int(version_of(done, first))
    settings = done.model_copy(update={"serve": done.serve.model_copy(update={"shadow": number})})
    with serving(settings, Silent()) as service:
        shadow, client = service.shadow, TestClient(service.app)
        assert shadow is not None
        until(lambda: shadow.standing.snapshot == first.sha)
        said = client.post("/predict", json={"text": "cash offer", "id": "m1"}).json()
        assert (said["snapshot"], said["version"]) == (last.sha, version_of(done, last))
        until(lambda: shadow.standing.sums.events == 1)
        assert shadow.standing.sums.shadow == first.sha


@pytest.mark.parametrize("step", ["after-decision", "before-moved"])
def test_after_a_promotion_was_killed_the_next_run_finishes_it_and_history_tells(
    done: Settings, step: str
) -> None:
    """Processes of their own: one decides and is killed, one runs, one tells."""
    with opened(done) as ledger:
        lines, before = len(ledger.decisions("main")), champion(ledger.decisions("main"))
    row = next(row for row in windows(done) if row.sha != before)
    died = forked("tests.app.promoter", str(done.home), row.sha, step)
    assert died.returncode == -signal.SIGKILL
    went_on = forked("priorflow", "run", "--until-end", *sets(done))
    assert (went_on.returncode, went_on.stderr) == (ExitCode.OK, "")
    with closing(registry(done)) as models:
        aliases = models.aliases()
    assert aliases["champion"] == version_of(done, row)
    told = forked("priorflow", "history", "--set", f"home={done.home}")
    *_, line, verified = map(json.loads, told.stdout.splitlines())
    assert (line["action"], line["snapshot"], line["by"]) == ("promote", row.sha, "ada@host")
    assert line["version"] == aliases["champion"]
    assert (line["why"], verified["lines"]) == ("a test", lines + 1)


def sets(settings: Settings) -> list[str]:
    said = settings.model_dump(exclude_unset=True, mode="json")
    return [word for name, value in said.items() for word in ("--set", f"{name}={json.dumps(value)}")]
