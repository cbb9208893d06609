"""What the server says of itself at /openapi.json is so, whatever is sent: Schemathesis attacks every place.

The application is the real one, with a chain that was really learned behind it. It answers sound requests
as documented, refuses unsound ones as documented, and never fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from connectors.blobs import open_blobs
from posterior.snapshot import Snapshot
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.deciding import Bench
from priorflow.run import execute
from priorflow.serving.service import opened as served
from tests.app.histories import history, opened
from tests.app.streams import archived, small_settings, small_stream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
KEY: Final = {"Authorization": "Bearer k3y"}
PLACES: Final = ("/", "/healthz", "/metrics", "/predict", "/promote", "/readyz", "/rollback")
SOUND: Final = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("openapi")
    stream = archived(small_stream(), folder / "stream")
    made = small_settings(
        folder / "home",
        stream,
        **{"serve.api_key": "k3y", "serve.decision_key": "k3y", "gate.enabled": False},
        **{"serve.max_events": 4, "serve.max_chars": 200},
    )
    execute(made, until_end=True, console=Silent())
    rows: list[Snapshot] = [row for row in history(made) if row.kind == "learned"]
    with opened(made) as ledger:
        bench = Bench(ledger=ledger, blobs=open_blobs(made.blobs_url), chain="main", actor="a test", at_ms=1)
        for row in rows[:2]:
            bench.promote(row.sha, force=True, reason="to begin with")
    return made


@pytest.fixture(scope="module")
def operations(learned: Settings) -> Iterator[dict[str, APIOperation[Any, Any, Any, Any]]]:
    load_all_checks()
    with served(learned, Silent()) as service:
        schema = schemathesis.openapi.from_asgi("/openapi.json", service.app)
        found = {}
        for one in schema.get_all_operations():
            assert isinstance(one, Ok), one
            found[one.ok().path] = one.ok()
        yield found


def test_every_place_is_attacked(operations: dict[str, Any]) -> None:
    assert tuple(sorted(operations)) == PLACES


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_it_does_what_it_says(operations: dict[str, Any], place: str, mode: GenerationMode) -> None:
    operation = operations[place]
    if mode is GenerationMode.NEGATIVE and operation.method.lower() == "get":
        return  # nothing is read of it that could be wrong

    @SOUND
    @given(case=operation.as_strategy(generation_mode=mode))
    def attacked(case: Any) -> None:
        case.call_and_validate(headers=KEY)

    attacked()
