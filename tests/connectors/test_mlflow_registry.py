"""Registries: one contract for memory and MLflow, and what only MLflow can do wrong."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from connectors.blobs import MemoryBlobs
from connectors.memory_ledger import MemoryLedger
from connectors.memory_registry import MemoryRegistry
from connectors.mlflow_registry import MlflowRegistry
from connectors.mlflow_store import shown
from posterior.registry import Registry, RegistryRefused, RegistryUnavailable
from posterior.snapshot import Snapshot
from tests.connectors.chain_builder import CIRCUMSTANCE, Writer


@dataclass
class Line:
    """A chain of three rows and the bytes of their posteriors."""

    rows: list[Snapshot]
    blobs: MemoryBlobs

    def publish(self, registry: Registry, row: Snapshot) -> str:
        return registry.publish(row, CIRCUMSTANCE, self.blobs.get(row.posterior))


@pytest.fixture
def line() -> Line:
    blobs = MemoryBlobs()
    writer = Writer.on_new_chain(MemoryLedger(blobs), blobs)
    return Line([writer.head, writer.learn(), writer.learn()], blobs)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow builds its tables in seconds; copies of the result are free."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.raises(RegistryRefused):
        MlflowRegistry(f"sqlite:///{path}", "other", experiment="other").fetch("1")
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(params=["memory", pytest.param("mlflow", marks=pytest.mark.mlflow)])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    made: Registry = MemoryRegistry()
    if request.param == "mlflow":
        made = MlflowRegistry(request.getfixturevalue("uri"), "mail-router", experiment="one")
    yield made
    made.close()


class TestContract:
    def test_published_once_however_often(self, registry: Registry, line: Line) -> None:
        versions = [line.publish(registry, row) for row in line.rows]
        assert versions == ["1", "2", "3"]
        assert [line.publish(registry, row) for row in line.rows] == versions
        assert [registry.version_of(row.sha) for row in line.rows] == versions
        assert registry.version_of("0" * 64) is None

    def test_read_back_as_it_was(self, registry: Registry, line: Line) -> None:
        for row in line.rows:
            version = line.publish(registry, row)
            assert registry.fetch(version) == (row, line.blobs.get(row.posterior))

    def test_other_bytes_are_refused(self, registry: Registry, line: Line) -> None:
        with pytest.raises(RegistryRefused, match="not its posterior"):
            registry.publish(line.rows[0], CIRCUMSTANCE, b"something else")
        assert registry.version_of(line.rows[0].sha) is None

    def test_aliases_go_where_they_are_told(self, registry: Registry, line: Line) -> None:
        for row in line.rows:
            line.publish(registry, row)
        registry.assert_aliases({"candidate": "3", "previous": None, "champion": "1"})
        registry.assert_aliases({"candidate": "3", "previous": "1", "champion": "2"})
        assert registry.aliases() == {"candidate": "3", "previous": "1", "champion": "2"}
        registry.assert_aliases({"previous": None})
        assert registry.aliases() == {"candidate": "3", "champion": "2"}
        registry.assert_aliases({})

    def test_what_is_not_there_is_told(self, registry: Registry, line: Line) -> None:
        line.publish(registry, line.rows[0])
        with pytest.raises(RegistryRefused):
            registry.fetch("77")
        with pytest.raises(RegistryRefused):
            registry.assert_aliases({"champion": "77"})


class Died(Exception):
    pass


def dies_at(step: str) -> Callable[[str], None]:
    def crash(here: str) -> None:
        if here == step:
            raise Died

    return crash


def run_of(registry: MlflowRegistry, version: str) -> str:
    return str(registry._client.get_model_version("mail-router", version).run_id)


def dressed(snapshot: Snapshot) -> dict[str, bytes]:
    return {"model.py": b"pass", "answers.json": json.dumps({"of": snapshot.sha}).encode()}


def folder_of(registry: MlflowRegistry, version: str) -> Path:
    found = registry._client.get_model_version_download_uri("mail-router", version)
    return Path(found[len("file://") :])


def _artifact_repositories() -> int:
    gc.collect()
    return sum(type(one).__name__.endswith("ArtifactRepository") for one in gc.get_objects())


@pytest.mark.mlflow
def test_no_repository_is_kept_for_a_version(uri: str, line: Line) -> None:
    """MLflow's client would keep one for each of the last 1,024, with a thread pool: memory that creeps."""
    with closing(MlflowRegistry(uri, "mail-router")) as registry:
        line.publish(registry, line.rows[0])
        before = _artifact_repositories()
        for row in line.rows[1:]:
            line.publish(registry, row)
        assert _artifact_repositories() == before


@pytest.mark.mlflow
class TestMlflow:
    def test_a_version_says_where_it_comes_from(self, uri: str, line: Line) -> None:
        registry = MlflowRegistry(uri, "mail-router", tags={"base_model_sha": "b" * 64})
        for row in line.rows:
            line.publish(registry, row)
        row = line.rows[2]
        client = registry._client
        version = client.get_model_version("mail-router", "3")
        assert version.tags == {
            "base_model_sha": "b" * 64,
            "chain": "main",
            "seq": "2",
            "index": "2",
            "kind": "learned",
            "snapshot_sha": row.sha,
            "parent_sha": row.parent,
            "parent_version": "2",
            "plan_sha": row.plan,
            "offsets": '{"events[0]":8,"labels[0]":8}',
            "window_time": "1000",
            "settings_sha": row.settings,
            "code_version": "0",
            "model_id": version.tags["model_id"],
        }
        files = Path(client.get_model_version_download_uri("mail-router", "3")[len("file://") :])
        assert sorted(f.name for f in files.iterdir()) == ["manifest.json", "posterior.safetensors"]
        assert b"state" not in b"".join(f.read_bytes() for f in files.glob("*.safetensors"))
        run = run_of(registry, "3")
        history = client.get_metric_history(run, "nll")
        assert [(m.step, m.value) for m in history] == [(1, 1.25), (2, 1.25)]
        model = client.get_logged_model(version.tags["model_id"])
        assert {m.step for m in model.metrics or ()} == {2}  # a version charts its own step
        found = client.get_run(run).data.metrics
        assert found["kl_nats"] == 3.5
        assert found["records/learned"] == 16
        assert found["seconds/train"] == 0.25

    @pytest.mark.parametrize("step", ["after-model", "after-artifacts", "after-finalize", "after-version"])
    def test_dying_at_any_step_ends_in_one_version(self, uri: str, line: Line, step: str) -> None:
        with pytest.raises(Died):
            line.publish(MlflowRegistry(uri, "mail-router", crash=dies_at(step)), line.rows[1])
        registry = MlflowRegistry(uri, "mail-router")
        assert line.publish(registry, line.rows[1]) == "1"
        client, experiment = registry._connection
        assert len(client.search_model_versions("name = 'mail-router'")) == 1
        models = client.search_logged_models([experiment])
        pending = [model for model in models if str(model.status) == "PENDING"]
        assert len(pending) == (step in ("after-model", "after-artifacts"))
        assert len(models) == 1 + len(pending)
        assert registry.sweep(0) == 0  # somebody may still be at it
        assert registry.sweep(2**60) == len(pending)
        assert registry.sweep(2**60) == 0
        history = client.get_metric_history(run_of(registry, "1"), "nll")
        assert len(history) == 1

    def test_a_new_store_is_there_when_it_is_whole(self, tmp_path: Path, line: Line) -> None:
        """Killed while it makes its tables, MLflow could never finish them."""
        store = tmp_path / "mlflow.db"
        with pytest.raises(Died):
            line.publish(
                MlflowRegistry(f"sqlite:///{store}", "mail-router", crash=dies_at("before-store")),
                line.rows[0],
            )
        assert not store.exists()
        assert line.publish(MlflowRegistry(f"sqlite:///{store}", "mail-router"), line.rows[0]) == "1"

    def test_two_publishers_at_once_agree_on_the_lowest(self, uri: str, line: Line) -> None:
        """The second looks before the first has registered, so both make a version."""
        row = line.rows[1]

        def overtaken(step: str) -> None:
            if step == "after-finalize":
                assert line.publish(MlflowRegistry(uri, "mail-router"), row) == "1"

        late = MlflowRegistry(uri, "mail-router", crash=overtaken)
        # Both finished a model, both registered one: 1 by the overtaker, 2 by us.
        assert line.publish(late, row) == "1"
        versions = late._client.search_model_versions("name = 'mail-router'")
        marks = {str(v.version): v.tags.get("duplicate_of") for v in versions}
        assert marks == {"1": None, "2": "1"}
        assert MlflowRegistry(uri, "mail-router").version_of(row.sha) == "1"

    @pytest.mark.parametrize("name", ["posterior.safetensors", "manifest.json"])
    def test_altered_and_lost_files_are_told(self, uri: str, line: Line, name: str) -> None:
        registry = MlflowRegistry(uri, "mail-router")
        version = line.publish(registry, line.rows[1])
        folder = registry._client.get_model_version_download_uri("mail-router", version)
        path = Path(folder[len("file://") :]) / name
        path.write_bytes(path.read_bytes().replace(b"1", b"2"))
        with pytest.raises(RegistryRefused, match="not what was published"):
            registry.fetch(version)
        path.unlink()
        with pytest.raises(RegistryRefused):
            registry.fetch(version)

    def test_files_spoilt_on_the_way_never_become_a_version(self, uri: str, line: Line) -> None:
        def spoil(step: str) -> None:
            if step == "after-artifacts":
                (path,) = Path(uri[len("sqlite:///") :]).parent.rglob("posterior.safetensors")
                path.write_bytes(b"half of it")

        registry = MlflowRegistry(uri, "mail-router", crash=spoil)
        with pytest.raises(RegistryRefused, match="not what was published"):
            line.publish(registry, line.rows[1])
        assert registry.version_of(line.rows[1].sha) is None

    def test_what_lies_beside_is_published_once_and_read_back(self, uri: str, line: Line) -> None:
        registry = MlflowRegistry(uri, "mail-router", dressing=dressed)
        assert [line.publish(registry, line.rows[1]) for _ in range(2)] == ["1", "1"]
        row = line.rows[1]
        assert registry.fetch("1") == (row, line.blobs.get(row.posterior))
        names = ["answers.json", "manifest.json", "model.py", "posterior.safetensors"]
        assert sorted(path.name for path in folder_of(registry, "1").iterdir()) == names
        assert json.loads((folder_of(registry, "1") / "answers.json").read_bytes()) == {"of": row.sha}

    @pytest.mark.parametrize("step", ["after-model", "after-artifacts", "after-finalize", "after-version"])
    def test_dying_beside_more_files_ends_in_one_version(self, uri: str, line: Line, step: str) -> None:
        with pytest.raises(Died):
            line.publish(
                MlflowRegistry(uri, "mail-router", dressing=dressed, crash=dies_at(step)), line.rows[1]
            )
        # The next release says other things beside: what is whole is not written again.
        registry = MlflowRegistry(uri, "mail-router", dressing=lambda _: {"other.json": b"{}"})
        assert line.publish(registry, line.rows[1]) == "1"
        again = step in ("after-model", "after-artifacts")
        assert (folder_of(registry, "1") / "other.json").is_file() is again
        assert (folder_of(registry, "1") / "answers.json").is_file() is not again
        assert registry.fetch("1")[0] == line.rows[1]

    @pytest.mark.parametrize("name", ["answers.json", "model.py"])
    def test_altered_and_lost_files_beside_are_told(self, uri: str, line: Line, name: str) -> None:
        line.publish(MlflowRegistry(uri, "mail-router", dressing=dressed), line.rows[1])
        registry = MlflowRegistry(uri, "mail-router")  # whoever reads need not know what was put there
        path = folder_of(registry, "1") / name
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(RegistryRefused, match=f"not what was published: {name}"):
            registry.fetch("1")
        path.unlink()
        with pytest.raises(RegistryRefused, match="are gone"):
            registry.fetch("1")

    def test_manifest_hashes_to_the_name(self, uri: str, line: Line) -> None:
        odd = replace(line.rows[1], labels=("émile's %", 'quo"te'), report={"per/é": {"a:b": 1.0}})
        registry = MlflowRegistry(uri, "mail-router")
        version = registry.publish(odd, CIRCUMSTANCE, line.blobs.get(odd.posterior))
        snapshot, _ = registry.fetch(version)
        assert snapshot == odd
        assert registry._client.get_run(run_of(registry, version)).data.metrics["per/é/a_b"] == 1.0

    def test_chains_share_a_model_and_have_runs_of_their_own(self, uri: str, line: Line) -> None:
        other = MemoryBlobs()
        what_if = Writer.on_new_chain(MemoryLedger(other), other, "what if: 'é'/ß").learn()
        registry = MlflowRegistry(uri, "mail-router")
        line.publish(registry, line.rows[1])
        version = registry.publish(what_if, CIRCUMSTANCE, other.get(what_if.posterior))
        assert registry.fetch(version)[0] == what_if
        client = registry._client
        runs = {run_of(registry, v) for v in ("1", version)}
        assert len(runs) == 2
        registry.close()
        assert {client.get_run(run).info.status for run in runs} == {"FINISHED"}

    def test_out_of_reach_may_be_tried_again(self, tmp_path: Path, line: Line) -> None:
        registry = MlflowRegistry("http://127.0.0.1:9", "mail-router")
        with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:9"):
            line.publish(registry, line.rows[0])
        (tmp_path / "mlflow.db").write_bytes(b"no database" * 1_000)
        registry = MlflowRegistry(f"sqlite:///{tmp_path}/mlflow.db", "mail-router")
        with pytest.raises(RegistryUnavailable):
            line.publish(registry, line.rows[0])


def test_importing_the_connector_does_not_import_mlflow() -> None:
    code = "import sys, connectors.mlflow_registry, connectors.outbox; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.lower()) is False


def test_a_password_is_never_shown() -> None:
    assert shown("https://me:sesame@host/x") == "https://me:***@host/x"
    assert shown("sqlite:///a/b.db") == "sqlite:///a/b.db"
