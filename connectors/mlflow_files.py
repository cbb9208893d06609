"""The files of a logged model: put where MLflow keeps them, and read back.

Not by MLflow's client, which keeps a repository and its thread pool for each of the last 1,024 models.
Imported when first used, since that costs seconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def put_files(files: Mapping[str, bytes], location: str, *, tracking_uri: str) -> None:
    """Write files by name to a logged model's place."""
    from mlflow.store.artifact import artifact_repository_registry  # noqa: PLC0415  see the module

    homes: Any = artifact_repository_registry  # untyped
    with tempfile.TemporaryDirectory(prefix="priorflow-") as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        homes.get_artifact_repository(location, tracking_uri=tracking_uri).log_artifacts(folder)


def read_files(names: Iterable[str], location: str, *, tracking_uri: str) -> dict[str, bytes]:
    """Return files by name; FileNotFoundError if one of them is gone."""
    from mlflow.artifacts import download_artifacts  # noqa: PLC0415  see the module

    with tempfile.TemporaryDirectory(prefix="priorflow-") as folder:
        found = download_artifacts(location, dst_path=folder, tracking_uri=tracking_uri)
        return {name: Path(found, name).read_bytes() for name in names}
