"""A record's task reaches the belief wherever a belief is asked: in the loop, replay, gate and baselines."""

from __future__ import annotations

import json
import random
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.blobs import open_blobs
from connectors.memory import MemoryLog
from posterior import panel
from posterior.families import make_family
from posterior.hierarchy import known_tasks
from posterior.snapshot import Snapshot
from posterior.tensors import from_bytes
from priorflow.asking import Asker
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.demo_baselines import sequential
from priorflow.learning import family_spec
from priorflow.replay import verify
from priorflow.run import chain_of, execute, open_updater, rules_of
from stream.plan import Member
from tests.app.streams import EVENTS, LABELS, archived, real_settings

pytestmark = pytest.mark.slow  # whole runs of the application

REGIONS = ("north", "south/east", None)
WORDS = {"boot": "kernel module will not boot", "cash": "win cheap cash offer now"}


def regions(count: int = 120) -> MemoryLog:
    """Return mails of regions, in the user's own JSON; what is urgent in one is idle in another."""
    rng = random.Random(3)
    log = MemoryLog([(EVENTS, 0), (LABELS, 0)])
    for i in range(count):
        words, region = rng.choice(sorted(WORDS)), REGIONS[rng.randrange(3)]
        time_ms = 1_000_000_000_000 + 60_000 * i
        body = {"id": f"m{i}", "text": f"{WORDS[words]} {i}", "time": time_ms}
        body |= {} if region is None else {"origin": {"region": region}}
        log.append((EVENTS, 0), json.dumps(body).encode())
        urgent = (words == "boot") != (region == "south/east")
        told = {"event_id": f"m{i}", "label": "urgent" if urgent else "idle", "time": time_ms + 500}
        log.append((LABELS, 0), json.dumps(told).encode())
    return log


@dataclass
class Done:
    """A run that ended, and what it committed."""

    settings: Settings
    history: list[Snapshot] = field(default_factory=list)
    windows: dict[int, tuple[Member, ...]] = field(default_factory=dict)

    def watch(self, what: str, **facts: Any) -> None:
        if what == "committed" and facts["members"]:
            self.windows[facts["snapshot"].index] = facts["members"]
            self.history.append(facts["snapshot"])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    archive = archived(regions(), tmp_path_factory.mktemp("regions"))
    said: dict[str, Any] = {
        "records.format": "mapped",
        "records.mapping.time_unit": "ms",
        "records.mapping.task": "/origin/region",
        "family.name": "bora",
        "family.apart": 2.0,
        "learn.lr": 0.1,
        "learn.epochs": 8,
        "learn.beta": 1.0,
        "learn.draws": 4,
    }
    made = Done(real_settings(tmp_path_factory.mktemp("home"), archive, **said))
    execute(made.settings, until_end=True, console=Silent(), watch=made.watch)
    return made


def test_what_a_chain_hands_on_knows_its_tasks(done: Done) -> None:
    spec = family_spec(done.settings)
    tensors = from_bytes(open_blobs(done.settings.blobs_url).get(done.history[-1].posterior))
    beside, state = panel.restore(tensors)
    assert beside is not None
    assert known_tasks(make_family(spec.name, spec.options).restore(state)) == ["", "north", "south/east"]


def test_the_same_words_mean_another_thing_in_another_task(done: Done) -> None:
    last = done.windows[max(done.windows)]
    right = {
        region: [m.forecast[m.label] > 0.5 for m in last if m.task == region and m.forecast]
        for region in REGIONS
    }
    assert all(len(told) >= 5 for told in right.values())
    assert all(sum(told) / len(told) > 0.8 for told in right.values()), right


def test_replay_is_the_same_bit_for_bit(done: Done) -> None:
    verdicts = verify(done.settings, chain="main", first=None, last=None, source=None, console=Silent())
    assert [same for _, _, same in verdicts] == [True] * len(done.windows)


def test_the_gate_asks_the_champion_about_each_event_s_task(done: Done) -> None:
    """Asked again, a snapshot says what it said when the events arrived."""
    candidate = done.history[-2]
    window = done.windows[candidate.index + 1]
    seen = [m for m in window if m.forecast and m.arrived == candidate.index]
    assert len(seen) >= 10
    blobs = open_blobs(done.settings.blobs_url)
    rules = rules_of(done.settings, chain_of(done.settings))
    with closing(open_updater(done.settings)) as updater:
        told = Asker(blobs=blobs, updater=updater, rules=rules).forecasts(candidate, seen)
    for member, forecast in zip(seen, told, strict=True):
        assert forecast == pytest.approx(dict(member.forecast or {}), abs=1e-6)


def test_a_baseline_that_is_the_chain_s_own_method_foretells_what_the_chain_foretold(done: Done) -> None:
    updater = open_updater(done.settings)
    rules = rules_of(done.settings, chain_of(done.settings))
    again = sequential(updater, rules, done.windows, lambda: None, sample=8)
    ours = [m.forecast for w in sorted(done.windows) for m in done.windows[w]]
    for prediction, forecast in zip(again.predictions, ours, strict=True):
        assert (prediction.forecast is None) == (not forecast)
        assert prediction.forecast is None or prediction.forecast == pytest.approx(dict(forecast or {}))
