"""MLflow as a registry of posteriors.

A snapshot becomes a logged model with two files, posterior.safetensors and manifest.json, whose sha256
are the snapshot's own; then a version that carries the sha as a tag. MLflow compares nothing and locks
nothing, so: search by sha first, read the files back before the version is made, and where two
publishers made two versions, the lowest is canonical and the others say so. Imported when first used,
since that costs seconds.

More files may lie beside the two, whose bytes come from whoever publishes; a tag of the logged model has
their hashes. What they say is no business of this module.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

from connectors.crash import Crash, live
from connectors.manifest import read_manifest
from connectors.mlflow_files import put_files, read_files
from connectors.mlflow_store import beside, connected, experiment_of, is_clients, register, shown
from connectors.version_tags import metrics, version_tags
from posterior.registry import Alias, RegistryError, RegistryRefused, RegistryUnavailable
from posterior.snapshot import Circumstance, LedgerCorrupt, Snapshot
from stream.plan import canonical_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

POSTERIOR: Final = "posterior.safetensors"
MANIFEST: Final = "manifest.json"
FILES: Final = "files_sha256"  # tag of a logged model: the files beside those two, and their hashes
WINDOWS: Final = ("learned", "quarantined")
MAX_METRICS: Final = 1_000  # of one batch
SWEPT: Final = 500  # newest logged models that are looked at for half-made ones
UNNAMEABLE: Final = str.maketrans(dict.fromkeys("/:.%\"'", "-"))  # in a logged model's name
REFUSALS: Final = frozenset(
    {
        "BAD_REQUEST",
        "CUSTOMER_UNAUTHORIZED",
        "INVALID_PARAMETER_VALUE",
        "NOT_FOUND",
        "NOT_IMPLEMENTED",
        "PERMISSION_DENIED",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)

Dressing = Callable[[Snapshot], Mapping[str, bytes]]
"""What lies beside a snapshot's two files, by name: a function of the snapshot and of its ledger."""


def bare(_: Snapshot) -> Mapping[str, bytes]:
    """Put nothing beside the two files."""
    return {}


@final
class MlflowRegistry:
    """A `Registry` in MLflow's store or behind its server; `tags` are put on every version.

    Connects on first use. Steps for `crash`: before-store (a new SQLite store is whole, but not in its
    place), after-model (no files yet), after-artifacts, after-finalize (no version yet), after-version.
    """

    def __init__(
        self,
        tracking_uri: str,
        registered_model: str,
        *,
        experiment: str = "priorflow",
        artifacts: str | None = None,
        tags: Mapping[str, str] | None = None,
        dressing: Dressing = bare,
        crash: Crash = live,
    ) -> None:
        self._uri = tracking_uri
        self._model = registered_model
        self._experiment = experiment
        self._artifacts = artifacts or beside(tracking_uri)
        self._tags = dict(tags or {})
        self._dressing = dressing
        self._crash = crash
        self._connected: tuple[MlflowClient, str] | None = None
        self._runs: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def publish(self, snapshot: Snapshot, circumstance: Circumstance, posterior: bytes) -> str:
        """Make the snapshot a version and return its number; the same again returns the same."""
        if hashlib.sha256(posterior).hexdigest() != snapshot.posterior:
            message = f"snapshot {snapshot.sha}: these are not its posterior's bytes"
            raise RegistryRefused(message)
        sha = snapshot.sha
        with self._translated():
            run = self._run(snapshot.chain)
            found = self._versions(sha)
            if not found:
                model = self._finished_model(sha) or self._log_model(snapshot, posterior, run)
                self._create_version(snapshot, circumstance, model, run)
                self._crash("after-version")
                found = self._versions(sha)
            version = self._canonical(found)
            if snapshot.kind in WINDOWS:
                self._log_metrics(snapshot, circumstance, run, _model_id(version))
        self._known[sha] = str(version.version)
        return self._known[sha]

    def version_of(self, sha: str) -> str | None:
        """Return the version of a snapshot, or None when it was never published."""
        if sha not in self._known:
            with self._translated():
                found = self._versions(sha)
            if not found:
                return None
            self._known[sha] = str(found[0].version)
        return self._known[sha]

    def fetch(self, version: str) -> tuple[Snapshot, bytes]:
        """Return a version's snapshot and posterior, both checked against their shas."""
        with self._translated():
            found = self._client.get_model_version(self._model, version)
            sha = str(found.tags.get("snapshot_sha", ""))
            return self._read_back(_model_id(found), sha)

    def assert_aliases(self, aliases: Mapping[Alias, str | None]) -> None:
        """Point the named aliases at these versions (None: nowhere) and read them back."""
        with self._translated():
            present = self.aliases()
            for alias, version in aliases.items():
                if version is None and alias in present:
                    self._client.delete_registered_model_alias(self._model, alias)
                elif version is not None and present.get(alias) != version:
                    self._client.set_registered_model_alias(self._model, alias, version)
            present = self.aliases()
        wrong = {a: v for a, v in aliases.items() if present.get(a) != v}
        if wrong:
            message = f"aliases of {self._model} were moved by someone else: wanted {wrong}"
            raise RegistryUnavailable(message)

    def aliases(self) -> Mapping[str, str]:
        """Return every alias and the version it points at."""
        with self._translated():
            found = self._client.get_registered_model(self._model).aliases
        return {alias: str(version) for alias, version in found.items()}

    def sweep(self, before_ms: int) -> int:
        """Mark as failed the logged models that a dead publisher left pending; return how many."""
        with self._translated():
            client, experiment = self._connection
            from mlflow.entities import LoggedModelStatus  # noqa: PLC0415  see the module

            # No filter by status: SQLite finds nothing by its name, PostgreSQL refuses its number.
            newest = [{"field_name": "creation_timestamp", "ascending": False}]
            left = client.search_logged_models([experiment], max_results=SWEPT, order_by=newest)
            pending = LoggedModelStatus.PENDING
            dead = [m for m in left if m.status == pending and m.creation_timestamp < before_ms]
            for model in dead:
                client.finalize_logged_model(model.model_id, "FAILED")
        return len(dead)

    def close(self) -> None:
        """Mark the chains' runs as finished; a later publication goes on with them."""
        if self._connected is not None:
            with self._translated():
                for run in self._runs.values():
                    self._client.set_terminated(run)

    def _log_model(self, snapshot: Snapshot, posterior: bytes, run: str) -> str:
        """Log the files, and believe it only when they have been read back."""
        client, experiment = self._connection
        more = self._dressing(snapshot)
        model: str = client.create_logged_model(
            experiment,
            name=f"{snapshot.chain}-{snapshot.seq}".translate(UNNAMEABLE),
            source_run_id=run,
            tags={"snapshot_sha": snapshot.sha, FILES: canonical_json(_hashes(more)).decode()},
            model_type="posterior",
        ).model_id
        self._crash("after-model")
        files = {**more, POSTERIOR: posterior, MANIFEST: canonical_json(snapshot.manifest())}
        put_files(files, self._location(model), tracking_uri=self._uri)
        self._crash("after-artifacts")
        self._read_back(model, snapshot.sha)
        client.finalize_logged_model(model, "READY")
        self._crash("after-finalize")
        return model

    def _finished_model(self, sha: str) -> str | None:
        """Find a logged model that someone finished and then died before making it a version."""
        client, experiment = self._connection
        for model in client.search_logged_models([experiment], f"tags.snapshot_sha = '{sha}'"):
            if str(model.status) == "READY":
                return str(model.model_id)
        return None

    def _create_version(self, snapshot: Snapshot, circumstance: Circumstance, model: str, run: str) -> None:
        parent = self.version_of(snapshot.parent) if snapshot.parent else None
        said = version_tags(snapshot, circumstance, parent)
        self._client.create_model_version(
            self._model,
            source=self._location(model),
            run_id=run,
            model_id=model,
            tags={**self._tags, **said, "model_id": model},
            await_creation_for=0,
        )

    def _canonical(self, found: Sequence[ModelVersion]) -> ModelVersion:
        """Return the lowest version of a sha, and have the others point at it."""
        first = found[0]
        for other in found[1:]:
            if other.tags.get("duplicate_of") != str(first.version):
                self._client.set_model_version_tag(
                    self._model, str(other.version), "duplicate_of", str(first.version)
                )
        return first

    def _versions(self, sha: str) -> Sequence[ModelVersion]:
        """Return all versions of a sha, lowest first."""
        named = f"name = '{self._model}' and tag.snapshot_sha = '{sha}'"
        found = self._client.search_model_versions(named)
        return sorted(found, key=lambda version: int(version.version))

    def _read_back(self, model: str, sha: str) -> tuple[Snapshot, bytes]:
        """Return what a logged model holds once every file of it is what was published."""
        held = self._client.get_logged_model(model)
        more: dict[str, str] = json.loads(held.tags.get(FILES, "{}"))
        where = str(held.artifact_location)
        found = read_files((POSTERIOR, MANIFEST, *more), where, tracking_uri=self._uri)
        try:
            snapshot = read_manifest(found[MANIFEST].decode(), sha)
        except (LedgerCorrupt, UnicodeDecodeError) as broken:
            raise _altered(model, str(broken)) from broken
        hashes = _hashes(found)
        for name, wanted in {POSTERIOR: snapshot.posterior, **more}.items():
            if hashes[name] != wanted:
                raise _altered(model, f"{name} is not that of snapshot {sha}")
        return snapshot, found[POSTERIOR]

    def _location(self, model: str) -> str:
        """Return where a logged model's files are.

        MLflow would look a models:/ address up in the process's default store, not in ours.
        """
        return str(self._client.get_logged_model(model).artifact_location)

    def _log_metrics(self, snapshot: Snapshot, circumstance: Circumstance, run: str, model: str) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415  see the module

        numbers = list(metrics(snapshot, circumstance).items())[:MAX_METRICS]
        self._client.log_batch(
            run,
            [
                Metric(name, value, circumstance.at_ms, snapshot.index, model_id=model)
                for name, value in numbers
            ],
        )

    def _run(self, chain: str) -> str:
        """Return the one run of a chain, the oldest if two processes made one each."""
        if chain not in self._runs:
            client, experiment = self._connection
            key = hashlib.sha256(chain.encode()).hexdigest()  # a filter cannot quote every name
            named = f"tags.`priorflow.chain_key` = '{key}'"
            found = client.search_runs([experiment], named, order_by=["attributes.start_time ASC"])
            tags = {"priorflow.chain": chain, "priorflow.chain_key": key}
            run = found[0] if found else client.create_run(experiment, tags=tags, run_name=chain)
            self._runs[chain] = run.info.run_id
        return self._runs[chain]

    @property
    def _client(self) -> MlflowClient:
        return self._connection[0]

    @property
    def _connection(self) -> tuple[MlflowClient, str]:
        """Connect on first use: client and experiment id."""
        if self._connected is None:
            client = connected(self._uri, self._crash)
            self._connected = client, experiment_of(client, self._experiment, self._artifacts)
            register(client, self._model)
        return self._connected

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever the client lets through into the port's errors, and connect anew after."""
        try:
            yield
        except RegistryError:
            raise
        except FileNotFoundError as missing:
            message = f"{self._model}: files of a version are gone from MLflow's store: {missing}"
            raise RegistryRefused(message) from missing
        except Exception as failed:
            if not is_clients(failed):
                raise
            self._connected = None
            self._runs.clear()
            self._known.clear()
            code = getattr(failed, "error_code", None)
            kind = RegistryRefused if code in REFUSALS else RegistryUnavailable
            message = f"MLflow at {shown(self._uri)}, model {self._model}: {failed}"
            raise kind(message) from failed


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def _model_id(version: ModelVersion) -> str:
    """Return the logged model behind a version."""
    return str(version.tags.get("model_id", ""))


def _altered(model: str, why: str) -> RegistryRefused:
    return RegistryRefused(f"logged model {model} in MLflow is not what was published: {why}")
