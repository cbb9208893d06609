"""What every test shares: one thread per process, patient Hypothesis, no silent skips."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Bits are promised for a fixed number of threads, and two test processes share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Wall time says nothing on a shared machine; pytest's own timeout stops what hangs.
settings.register_profile("priorflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("priorflow")

pytest_plugins = ["tests.kafka_fixtures"]

REAL_SERVICES = ("kafka", "ray", "mlflow", "postgres", "slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer --no-skips: a test that did not run is not a test that passed; and --soak."""
    parser.addoption("--no-skips", action="store_true", help="fail the run if any test was skipped")
    parser.addoption("--soak", action="store_true", help="kill as often as docs/guarantees.md says")


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Tell whether to take the time for every death, or for enough of them to see a new mistake."""
    return bool(request.config.getoption("--soak"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the long tests first, so that the last worker is not left alone with them.

    A file counts as long as the most patient of its tests: whoever set a timeout knew that it takes its time.
    Those in a browser run only where it is asked for by name: it comes with no package of Python's.
    """
    if "browser" not in config.getoption("markexpr"):
        items[:] = [item for item in items if not item.get_closest_marker("browser")]
    longest: Counter[Path] = Counter()
    for item in items:
        longest[item.path] = max(longest[item.path], _patience_s(item))
    items.sort(key=lambda item: (not _real(item), -longest[item.path]))


def _real(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in REAL_SERVICES)


def _patience_s(item: pytest.Item) -> int:
    marker = item.get_closest_marker("timeout")
    return int(marker.args[0]) if marker is not None else 0


def pytest_collection_finish() -> None:
    """Have the collector leave alone what was imported: every run would look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run under --no-skips that left something out."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(
            "skipped tests count as failures here (--no-skips); -rs tells why they did not run"
        )
