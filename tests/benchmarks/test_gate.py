"""The gate that the benchmark plays many streams through is the gate."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import gate as bench
from benchmarks.intervals import share
from tests.trainers.betting import told
from trainers.gates import Evidence, better
from trainers.wager import Wager, count


@pytest.mark.parametrize(("seed", "level"), [(1, 0.0), (2, 0.3), (3, -0.3), (4, 0.6)])
def test_it_passes_where_the_gate_passes(seed: int, level: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    gains = level + 1.2 * torch.randn(1, 260, generator=generator, dtype=torch.float64)
    gains[:, 200:] -= 2 * level  # and turns
    wager = Wager(challenger="head", incumbent="champion", since=3)
    said = []
    for place, gain in enumerate(gains[0].tolist()):
        wager = count(wager, told(gain, place))
        found = better(bench.BOUNDS, Evidence(candidate="c", champion="champion", wager=wager))
        said.append(found.verdict == "pass")
    assert bench.passes(gains)[0].tolist() == said


@pytest.mark.parametrize("name", list(bench.NULLS))
def test_the_nulls_are_even_on_average(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    gains, level = bench.NULLS[name](generator, 60)
    spread = float(gains.mean(1).std()) / math.sqrt(60)
    assert abs(float(gains.mean())) < 4 * spread
    assert abs(float((gains - level).mean())) < 4 * float(gains.std()) / math.sqrt(gains.numel())


def test_streams_that_are_promoted_falsely_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def case(_: torch.Generator, streams: int) -> bench.Stream:
        """Half are good all along; half were good and are now worse on average, and are still praised."""
        level = torch.full((streams, bench.EVENTS), 1.0, dtype=torch.float64)
        level[: streams // 2, 150:] = -5.0
        return level, level

    monkeypatch.setattr(bench, "passes", lambda gains: torch.ones_like(gains, dtype=torch.bool))
    found = bench.examine(case, 1, 10)
    assert found.promoted["gate, every label"] == [10] * len(bench._SHOWN)
    assert found.false["gate, every label"] == 5


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0)]
)
def test_a_share_has_the_interval_of_the_tables(hits: int, n: int, low: float, high: float) -> None:
    found = share(hits, n)
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-4)
