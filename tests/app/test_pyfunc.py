"""Versions as MLflow loads them: what `priorflow run` published answers, anywhere, as priorflow does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

from connectors.blobs import open_blobs
from posterior.snapshot import Snapshot
from priorflow.answering import ANSWERING
from priorflow.cli import call
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.exit_codes import ExitCode
from priorflow.flavour import OUTPUTS, as_served, flavour
from priorflow.learning import model_spec
from priorflow.opening import MLFLOW, registry
from priorflow.run import execute
from priorflow.serving.version import ready, rule_of
from priorflow.serving.wire import answered
from stream.plan import canonical_json
from stream.prediction_id import event_of, prediction_id
from tests.app.deployment import free_ports
from tests.app.histories import history, opened
from tests.app.streams import archived, real_settings, small_settings, small_stream
from tests.app.versions import TEXTS, answerer, published
from trainers.abstention import Abstention, abstention
from trainers.activations import Activations
from trainers.answer import Answer
from trainers.model import AdaptedModel

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NO_PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
LOAD = """
import json, sys
import mlflow

texts = [{"text": text, "id": f"t{i}"} for i, text in enumerate(json.load(sys.stdin))]
for address in sys.argv[1:]:
    print(json.dumps(mlflow.pyfunc.load_model(address).predict(texts).to_dict("records")))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    archive = archived(small_stream(), tmp_path_factory.mktemp("archive"))
    gate = {"gate.max_ece": 1.0, "gate.max_kl_per_example": 1e9, "gate.min_recall": 0}
    settings = real_settings(tmp_path_factory.mktemp("home"), archive, **{"mlflow.enabled": True}, **gate)
    assert execute(settings, until_end=True, console=Silent()).published
    return settings


@pytest.fixture(scope="module", autouse=True)
def store(done: Settings) -> Iterator[None]:
    """MLflow would make a store of its own where tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", done.tracking_uri)
        yield


@pytest.fixture(scope="module")
def champion(done: Settings) -> tuple[Snapshot, str]:
    """Return who the registry says is champion, and its version."""
    with closing(registry(done)) as versions:
        version = versions.aliases()["champion"]
        return versions.fetch(version)[0], version


def answers(settings: Settings, snapshot: Snapshot, texts: Sequence[str]) -> list[Answer]:
    posterior = open_blobs(settings.blobs_url).get(snapshot.posterior)
    home = answerer(settings, snapshot, posterior)
    return [home.answer(text) for text in texts]


def rule(settings: Settings, snapshot: Snapshot) -> Abstention:
    told = [row.report.get("confidences") for row in history(settings) if row.index <= snapshot.index]
    return abstention([one for one in told if one], risk=0.1, alpha=0.05)


def row(answer: Answer, withhold: Abstention | None, snapshot: Snapshot, version: str, name: str) -> Any:
    return {
        "label": answer.label,
        "probability": answer.confidence,
        "probabilities": dict(answer.probabilities),
        "novelty": answer.novelty,
        "low": answer.interval[0],
        "high": answer.interval[1],
        "total": answer.total,
        "aleatoric": answer.aleatoric,
        "epistemic": answer.epistemic,
        "abstain": withhold is not None and withhold.abstains(answer.confidence),
        "snapshot": snapshot.sha,
        "version": version,
        "prediction_id": prediction_id(name, snapshot.sha),
    }


def rows(settings: Settings, champion: tuple[Snapshot, str], withhold: Abstention | None) -> list[Any]:
    told = answers(settings, champion[0], TEXTS)
    return [row(answer, withhold, *champion, f"t{i}") for i, answer in enumerate(told)]


def stranger(settings: Settings) -> dict[str, str]:
    """Return the environment of a process that knows MLflow's address and nothing of ours."""
    kept = {name: os.environ[name] for name in ("HOME", "OMP_NUM_THREADS") if name in os.environ}
    return {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        NO_PICKLE: "false",
    }


def test_a_fresh_process_answers_as_priorflow_does(
    done: Settings, champion: tuple[Snapshot, str], tmp_path: Path
) -> None:
    """Whether it asks for the champion or for the version by its number."""
    addresses = ["models:/priorflow@champion", f"models:/priorflow/{champion[1]}"]
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, *addresses],
        input=json.dumps(TEXTS),
        env=stranger(done),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    told = [json.loads(line) for line in loaded.stdout.splitlines()]
    assert told == [rows(done, champion, rule(done, champion[0]))] * 2
    assert "WARNING" not in loaded.stderr


def test_every_version_loads_and_names_itself(done: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_PICKLE, "false")
    learned = [snapshot for snapshot in history(done) if snapshot.kind == "learned"]
    for snapshot in learned:
        with opened(done) as ledger:
            version = ledger.reference(snapshot.sha, MLFLOW) or "none"
        told = load(f"models:/priorflow/{version}").predict(pd.DataFrame({"text": TEXTS}))
        assert list(told["snapshot"]) == [snapshot.sha] * len(TEXTS)
        assert list(told["version"]) == [version] * len(TEXTS)
        assert list(told["probability"]) == [a.confidence for a in answers(done, snapshot, TEXTS)]
        with closing(registry(done)) as versions:  # MLflow leaves a note in the folder it loads from
            assert versions.fetch(version)[0] == snapshot
    assert len(learned) == 4


def ask(address: str, body: Mapping[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


@pytest.fixture
def server(done: Settings, tmp_path: Path) -> Iterator[str]:
    """Serve the champion by MLflow's own server, on loopback."""
    (port,) = free_ports(1)
    words = ["models", "serve", "-m", "models:/priorflow@champion", "--env-manager", "local", "-p", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "-h", "127.0.0.1"],
            env=stranger(done),
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/ping", process, tmp_path / "log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)  # between two questions to a server that is starting
    raise AssertionError(log.read_text(encoding="utf-8"))


def test_mlflow_serves_the_same_answers(done: Settings, champion: tuple[Snapshot, str], server: str) -> None:
    table = {"columns": ["text", "id"], "data": [[text, f"t{i}"] for i, text in enumerate(TEXTS)]}
    status, said = ask(server, {"dataframe_split": table})
    assert (status, said) == (200, {"predictions": rows(done, champion, rule(done, champion[0]))})
    status, said = ask(server, {"dataframe_split": table, "params": {"risk": 1.0}})
    assert (status, said) == (200, {"predictions": rows(done, champion, None)})
    status, said = ask(server, {"dataframe_records": [{"text": TEXTS[0]}]})
    assert (status, said["predictions"][0]["prediction_id"]) == (200, None)
    status, said = ask(server, {"dataframe_split": table, "params": {"risk": -1.0}})
    assert (status, said["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "risk -1.0" in said["message"]
    status, said = ask(server, {"dataframe_records": [{"words": "no text"}]})
    assert status == 400
    assert "text" in said["message"]


class Pickled(PythonModel):
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        del context, params
        return model_input


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(folder_of(tmp_path_factory.mktemp("versions")))


def load(address: Path | str, **more: Any) -> Any:  # MLflow's own types know no table
    return mlflow.pyfunc.load_model(str(address), **more)


def folder_of(at: Path) -> Path:
    chain = published(small_settings(at, None), [(85, 60, 60)])
    return chain.folder(at / "version", flavour(chain.ledger, chain.settings.model.encoder))


def test_pickles_are_refused_and_ours_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.pyfunc.save_model(tmp_path / "pickled", python_model=Pickled(), pip_requirements=["mlflow"])
    monkeypatch.setenv(NO_PICKLE, "false")
    with pytest.raises(MlflowException, match="pickle is disallowed"):
        load(tmp_path / "pickled")
    assert load(folder_of(tmp_path)).predict([{"text": "win cheap cash"}])["label"][0] == "money"


def test_what_goes_in_and_comes_out_is_said(loaded: Any) -> None:
    signature = loaded.metadata.signature
    assert signature.inputs.required_input_names() == ["text"]
    assert signature.inputs.optional_input_names() == ["id", "task"]
    assert signature.outputs.input_names() == list(OUTPUTS)
    assert {p.name: p.default for p in signature.params} == {"risk": 0.1, "alpha": 0.05}
    told = loaded.predict(loaded.input_example)
    assert list(told.columns) == list(OUTPUTS)
    assert event_of(told["prediction_id"][0]) == "ticket-17"


def test_a_table_may_be_of_any_form(loaded: Any) -> None:
    text = TEXTS[0]
    one = loaded.predict(pd.DataFrame({"text": [text]})).to_dict("records")
    assert one[0]["version"] is None  # a folder alone has no number
    assert one[0]["prediction_id"] is None
    for table in ([{"text": text}], {"text": text}, pd.DataFrame({"task": [None], "text": [text]})):
        assert loaded.predict(table).to_dict("records") == one
    many = pd.DataFrame({"text": [TEXTS[1], text], "id": ["a", None]}, index=[7, 3])
    told = loaded.predict(many)
    assert list(told.index) == [7, 3]
    assert told.loc[3].to_dict() == one[0]
    assert loaded.predict(many.iloc[:0]).empty


def test_a_row_without_text_is_named(loaded: Any) -> None:
    with pytest.raises(MlflowException, match="row 1 has no text"):
        loaded.predict(pd.DataFrame({"text": ["here", None]}))


def test_another_risk_may_be_asked_for(loaded: Any) -> None:
    """All sixty forecasts were right at 0.85; whatever is less sure is withheld, unless all are wanted."""
    table = pd.DataFrame({"text": TEXTS})
    told = loaded.predict(table)
    assert list(told["abstain"]) == [p < 0.85 for p in told["probability"]]
    assert set(told["abstain"]) == {False, True}
    assert not loaded.predict(table, params={"risk": 1.0})["abstain"].any()
    assert loaded.predict(table, params={"risk": 0.001})["abstain"].all()  # sixty cannot show so little
    assert not loaded.predict(table, params={"risk": 0.001, "alpha": 0.95})["abstain"].all()
    with pytest.raises(MlflowException, match=r"risk 2\.0"):
        loaded.predict(table, params={"risk": 2.0})


@pytest.mark.parametrize("serve", [{"draws": 5}, {"draws": 0, "risk": 0.3}, {"draws": 1, "risk": None}])
def test_it_answers_and_withholds_as_the_server_does(tmp_path: Path, serve: Mapping[str, Any]) -> None:
    """Whatever `serve` says of draws and risk, which the chain was not learned with."""
    settings = small_settings(tmp_path, None, **{f"serve.{name}": value for name, value in serve.items()})
    chain = published(settings, [(70, 40, 30)], [(85, 60, 60)], idle=60)
    dressing = flavour(chain.ledger, settings.model.encoder, as_served(settings))
    told = load(chain.folder(tmp_path / "version", dressing)).predict(pd.DataFrame({"text": TEXTS}))
    model = AdaptedModel(model_spec(settings))
    version = ready(
        settings,
        model,
        Activations(model),
        chain.head,
        chain.posterior,
        rule=rule_of(settings, chain.ledger.history("main"), chain.head),
        name=None,
        settled=True,
    )
    for text, mine in zip(TEXTS, told.to_dict("records"), strict=True):
        said = answered("m1", version.answerer.answer(text), version).model_dump()
        assert mine["probabilities"] == said["probabilities"]
        assert (mine["label"], mine["abstain"]) == (said["label"], said["abstain"])
        assert (mine["low"], mine["high"]) == tuple(said["interval"])


def test_the_encoder_may_be_named_when_loading(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the encoder is not here"):
        load(folder_of(tmp_path), model_config={"encoder": str(tmp_path / "none")})


def test_one_that_knows_no_class_says_so_when_asked(tmp_path: Path) -> None:
    chain = published(small_settings(tmp_path, None))
    unknowing = replace(chain.head, labels=())
    folder = replace(chain, head=unknowing).folder(
        tmp_path / "version", flavour(chain.ledger, "package:none")
    )
    path = folder / ANSWERING
    said = json.loads(path.read_bytes()) | {"encoder": chain.settings.model.encoder}
    path.write_bytes(canonical_json(said))
    model = load(folder)
    with pytest.raises(MlflowException, match="knows no class"):
        model.predict([{"text": "win"}])


def test_a_run_that_only_starts_does_not_import_mlflow() -> None:
    code = "import sys, priorflow.run; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_a_champion_that_a_person_put_in_charge_is_published_whole(
    done: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run had thinned it out, so the command publishes it: as a version like any other."""
    stream = str(done.archive_path)
    said = {"mlflow.enabled": True, "mlflow.every": 100, "gate.enabled": False}
    settings = small_settings(tmp_path / "home", Path(stream), **said)
    execute(settings, until_end=True, console=Silent())
    thinned = next(row for row in history(settings) if row.kind == "learned" and not number(settings, row))
    (tmp_path / "priorflow.yaml").write_text(json.dumps(settings.shown()), encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    command = ["--config", str(tmp_path / "priorflow.yaml"), "promote", thinned.sha, "--force"]
    assert call([*command, "--reason", "seen to be sound"]) == ExitCode.OK
    model = mlflow.pyfunc.load_model(f"models:/{settings.mlflow.registered_model}@champion")
    assert set(model.predict(pd.DataFrame({"text": TEXTS}))["snapshot"]) == {thinned.sha}


def number(settings: Settings, row: Snapshot) -> str | None:
    with opened(settings) as ledger:
        return ledger.reference(row.sha, MLFLOW)
