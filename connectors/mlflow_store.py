"""MLflow's store: how it is reached, built and told apart from faults of our own.

Imported when first used, since that costs seconds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from connectors.crash import Crash

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE: Final = "sqlite:///"
QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # The outbox waits and tries again by itself; a call that hangs for minutes would hide an outage.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def shown(uri: str) -> str:
    """Write an address without its password."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.hostname}"))


def connected(uri: str, crash: Crash) -> MlflowClient:
    """Import MLflow, quietly, and connect; an operator's own settings win."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # noqa: PLC0415  see the module

    if uri.startswith(SQLITE):
        _have_store(Path(uri.removeprefix(SQLITE)), crash)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _have_store(path: Path, crash: Crash) -> None:
    """Build a new SQLite store elsewhere and link it into place when it is whole.

    It takes MLflow seconds, and killed meanwhile it leaves tables that it can never finish.
    """
    if path.exists():
        return
    from mlflow import MlflowClient  # noqa: PLC0415  see the module

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}-{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="priorflow-") as folder:
        draft = Path(folder, path.name)
        MlflowClient(tracking_uri=f"{SQLITE}{draft}").search_experiments(max_results=1)
        shutil.copyfile(draft, whole)  # not moved: the draft stays open as long as this process lives
    crash("before-store")
    with suppress(FileExistsError):  # another process was faster
        os.link(whole, path)
    whole.unlink(missing_ok=True)


def experiment_of(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Return the experiment's id, creating it if nobody has."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  see the module

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=artifacts))
    except MlflowException as raced:
        if raced.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_of(client, name, artifacts)


def register(client: MlflowClient, name: str) -> None:
    """Create the registered model unless someone has."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  see the module

    try:
        client.create_registered_model(name)
    except MlflowException as known:
        if known.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def beside(uri: str) -> str | None:
    """Keep artifacts beside a SQLite store; a server has its own place for them."""
    if not uri.startswith(SQLITE):
        return None
    folder = Path(uri.removeprefix(SQLITE)).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "mlflow-artifacts").as_uri()


def is_clients(error: Exception) -> bool:
    """Tell the client's errors, and those it lets through, from faults of our own.

    By their library's name: catching them by type would import MLflow before it is used.
    """
    libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or not libraries.isdisjoint({"mlflow", "sqlalchemy"})
