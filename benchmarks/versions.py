"""When MLflow says that a version came to be."""

from __future__ import annotations

from mlflow import MlflowClient

from priorflow.config import Settings

_PAGE = 500


def created(settings: Settings) -> dict[str, float]:
    """Return the creation time (ms since the epoch) of every version, by its snapshot's sha."""
    client = MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)
    named, token, out = f"name = '{settings.mlflow.registered_model}'", None, dict[str, float]()
    while True:
        page = client.search_model_versions(named, max_results=_PAGE, page_token=token)
        out |= {str(v.tags["snapshot_sha"]): float(v.creation_timestamp) for v in page}
        token = page.token
        if not token:
            return out
