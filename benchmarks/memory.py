"""Whether the driver's memory stays flat: resident set over 2,000 small windows.

    .venv/bin/python benchmarks/memory.py [--quick] [--json]

`priorflow run` with `workers: 0`, so that learning is in the same process, from a real Kafka, against a
ledger on SQLite, every window published to MLflow. Texts come from a small set, so that the bounded cache
of activations is full before measuring begins; the horizons of the stream end within the warm-up too.
Growth is from each tenth of the windows to the tenth half a series later.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.intervals import Estimate, growth
from benchmarks.result import Result, Row, arguments, progress, publish
from benchmarks.streams import as_cloudevents, broker, fresh_folder, mixed, produce, topics
from benchmarks.versions import created
from connectors.kafka_client import KafkaClient
from connectors.mails import Mail
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.run import execute

WINDOWS, WARM_UP = 2_000, 1_200  # bounded stores of the clients go on filling for a thousand windows
QUICK_WINDOWS, QUICK_WARM_UP = 60, 20
SIZE: Final = 8
TEXTS: Final = 300
BLOCKS: Final = 20
TARGET: Final = 1.0  # MiB per thousand windows
MIB: Final = 1 << 20
NAME: Final = "memory"
SAID: Final = {
    "window.size": SIZE,
    "learn.workers": 0,
    "learn.epochs": 1,
    "learn.draws": 2,
    "model.max_tokens": 16,
}


def resident_mib() -> float:
    """Return this process's resident set, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@final
@dataclass
class Sampler:
    """Looks at memory after every window."""

    mib: list[float] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def watch(self, what: str, **facts: Any) -> None:
        """Take a sample at a commit."""
        if what == "committed" and facts["members"]:
            self.mib.append(resident_mib())
            if len(self.mib) % 100 == 0:
                spent = time.monotonic() - self.begun
                progress(f"{len(self.mib)} windows, {self.mib[-1]:.1f} MiB, {spent:.0f} s")


def settings_for(folder: Path, client: KafkaClient) -> Settings:
    """Return the default settings, but for a small model and small windows."""
    names = {f"kafka.topics.{k}": v for k, v in topics(NAME).model_dump().items()}
    where = {"home": str(folder / "home"), "kafka.bootstrap": client.bootstrap, "chain.name": NAME}
    return load(None, overrides={**where, **names, **SAID, "mlflow.registered_model": NAME})


def stream(windows: int) -> list[Mail]:
    """Return enough mails, their texts from a small set."""
    chosen = mixed(int(windows * SIZE * 1.1) + 400, seed=7)
    texts = [m.text for m in chosen[:TEXTS]]
    return [replace(m, text=texts[i % TEXTS]) for i, m in enumerate(chosen)]


def measure(
    folder: Path, client: KafkaClient, windows: int, warm_up: int
) -> tuple[Settings, Sequence[float]]:
    """Run over all windows; return the samples, those of the warm-up first."""
    settings = settings_for(folder, client)
    produce(client, as_cloudevents(stream(windows + warm_up), topics(NAME)), topics(NAME))
    sampler = Sampler()
    outcome = execute(
        settings, until_end=True, max_windows=windows + warm_up, console=Silent(), watch=sampler.watch
    )
    assert outcome.published, "MLflow took every version"
    assert len(sampler.mib) == windows + warm_up, "the stream is long enough"
    assert len(created(settings)) >= windows + warm_up, "every window is a version"
    return settings, sampler.mib


def per_thousand(mib: Sequence[float]) -> Estimate:
    """Return the growth in MiB per thousand windows; halves lie half a series apart."""
    found, scale = growth(mib, blocks=BLOCKS), 1000 / (len(mib) / 2)
    return Estimate(found.value * scale, found.low * scale, found.high * scale)


def main() -> None:
    """Measure and publish."""
    asked = arguments(__doc__)
    windows, warm_up = (QUICK_WINDOWS, QUICK_WARM_UP) if asked.quick else (WINDOWS, WARM_UP)
    folder = fresh_folder(NAME)
    with broker(folder) as client:
        settings, samples = measure(folder, client, windows, warm_up)
    mib = samples[warm_up:]
    row = Row(
        what=f"growth of the driver's resident set over {windows} windows, after {warm_up} to warm up",
        bound="at most",
        target=TARGET,
        measured=per_thousand(mib),
        unit="MiB per 1,000 windows",
        runs=windows,
    )
    block = len(mib) // BLOCKS
    how = {
        "settings": SAID | {"ledger": settings.ledger_url.split("://")[0], "versions": "every window"},
        "texts": TEXTS,
        "MiB at the first window": round(samples[0], 1),
        "MiB after the warm-up": round(mib[0], 1),
        "MiB at the end": round(mib[-1], 1),
        "MiB, mean of each twentieth": [
            round(sum(mib[i * block : (i + 1) * block]) / block, 1) for i in range(BLOCKS)
        ],
    }
    publish(Result(name=NAME, rows=[row], how=how), asked)


if __name__ == "__main__":
    main()
