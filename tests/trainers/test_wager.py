"""The bet on paired losses: never more false verdicts than stated, however often one looks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.betting import OPEN, coins, counted, log_e, log_e_lately, normals, told
from trainers.wager import (
    CLIP,
    FRACTIONS,
    Paired,
    Wager,
    better_by,
    clipped_gain,
    count,
    count_all,
    dump,
    gain,
    gain_at_least,
    gain_at_most,
    load,
    worse_by,
    worse_lately,
)

ALPHA = 0.05
NEED = -math.log(ALPHA)
STREAMS, EVENTS = 2000, 1000
MARGIN = 3 * math.sqrt(ALPHA * (1 - ALPHA) / STREAMS)  # of Monte Carlo: three standard errors

losses = st.floats(0, math.inf)
gains = st.lists(st.floats(-2 * CLIP, 2 * CLIP), max_size=40)


def kept(wager: Wager) -> Wager:
    return load(json.loads(json.dumps(dump(wager), allow_nan=False)))


@pytest.mark.parametrize("seed", range(3))
def test_one_stream_counts_as_many_at_once_do(seed: int) -> None:
    x = 2 * normals(1, 60, seed=seed)
    wagers, wager = [], OPEN
    for place, nats in enumerate(x[0].tolist()):
        wager = count(wager, told(nats, place))
        wagers.append(wager)
    for one, many in (
        (better_by, log_e(x)),
        (partial(better_by, nats=0.1), log_e(x, nats=0.1)),
        (worse_by, log_e(x, side=-1)),
        (partial(worse_by, nats=0.2), log_e(x, nats=-0.2, side=-1)),
        (worse_lately, log_e_lately(x)),
    ):
        assert [one(w) for w in wagers] == pytest.approx(many[0].tolist(), abs=1e-12)


# No false verdicts


def fair_tree(game: Sequence[tuple[float, float]]) -> Iterator[tuple[float, list[Wager]]]:
    """Play every course of a fair game whose stakes follow from what came before; yield its probability.

    `game` is a pool of (up, down): at each event one is taken by the course so far, and comes out up with
    probability down / (up + down), so that its mean is 0 whatever came before.
    """
    for course in product((0, 1), repeat=7):
        probability, wager, path = 1.0, OPEN, [OPEN]
        for place, wins in enumerate(course):
            up, down = game[hash(course[:place]) % len(game)]
            probability *= (down if wins else up) / (up + down)
            wager = count(wager, told(up if wins else -down, place))
            path.append(wager)
        yield probability, path


stakes = st.lists(st.tuples(st.floats(0.1, CLIP), st.floats(0.1, CLIP)), min_size=1, max_size=6)


@given(stakes, st.floats(0.05, 0.9))
def test_a_fair_game_wins_nothing_and_rarely_looks_as_if(
    game: list[tuple[float, float]], alpha: float
) -> None:
    courses = list(fair_tree(game))
    assert math.fsum(p for p, _ in courses) == pytest.approx(1)
    for evidence in (better_by, worse_by, worse_lately):
        means = [math.fsum(p * math.exp(evidence(path[t])) for p, path in courses) for t in range(8)]
        assert means == pytest.approx([1] * 8)
        ever = math.fsum(p for p, path in courses if max(map(evidence, path)) >= -math.log(alpha) + 1e-9)
        assert ever <= alpha


def exchangeable(seed: int) -> Tensor:
    """Return gains of two policies that are equally good: heavy losses, many beyond the clip."""
    ours, theirs = normals(2, STREAMS, EVENTS, seed=seed).mul(1.5).exp().clamp(max=CLIP).unbind()
    return theirs - ours


def rare_disaster(seed: int) -> Tensor:
    """Return gains that are nearly always small and good, and now and then cost all: mean 0."""
    return torch.where(coins(torch.full((STREAMS, EVENTS), 0.02), seed=seed), -4.9, 0.1)


@pytest.mark.parametrize("null", [exchangeable, rare_disaster])
@pytest.mark.parametrize("evidence", [log_e, partial(log_e, side=-1), log_e_lately])
def test_looking_at_every_event_promotes_no_more_often_than_stated(
    null: Callable[[int], Tensor], evidence: Callable[[Tensor], Tensor]
) -> None:
    false = (evidence(null(7)) >= NEED).any(dim=1).double().mean()
    assert false <= ALPHA + MARGIN


def drifting(seed: int) -> tuple[Tensor, Tensor]:
    """Return gains whose conditional mean wanders with what came before, and those means."""
    level = (normals(STREAMS, EVENTS, seed=seed) * 0.1).cumsum(dim=1).sin()  # in [-1, 1], known before
    up, down = 3.0, 2.0
    won = coins((level + down) / (up + down), seed=seed + 1)
    return torch.where(won, up, -down), level


def test_bounds_hold_at_all_times_although_the_mean_drifts() -> None:
    x, level = drifting(11)
    so_far = level.cumsum(1) / torch.arange(1, EVENTS + 1)
    below = (log_e(x, nats=so_far) >= NEED).any(dim=1).double().mean()
    above = (log_e(x, nats=so_far, side=-1) >= NEED).any(dim=1).double().mean()
    assert max(below, above) <= ALPHA + MARGIN


def test_one_who_was_worse_and_then_better_is_better_only_once_that_is_made_good() -> None:
    level = torch.full((STREAMS, EVENTS), 0.4, dtype=torch.float64)
    level[:, : EVENTS // 2] = -0.4
    x = torch.where(coins((level + 1) / 2, seed=5), 1.0, -1.0)
    assert (log_e(x) >= NEED).any(dim=1).double().mean() <= ALPHA + MARGIN


# Real differences are found


@pytest.mark.parametrize(("better", "labels"), [(0.3, 200), (0.1, 1500)])
def test_a_real_difference_is_found_in_a_sane_number_of_labels(better: float, labels: int) -> None:
    x = better + 0.8 * normals(400, labels, seed=3)
    assert (log_e(x) >= NEED).any(dim=1).double().mean() >= 0.8
    assert (log_e(-x, side=-1) >= NEED).any(dim=1).double().mean() >= 0.8


def test_one_who_turns_bad_after_a_long_good_time_is_found_at_once() -> None:
    x = torch.cat([0.3 + 0.8 * normals(50, 2000, seed=1), -0.5 + 0.8 * normals(50, 400, seed=2)], dim=1)
    lately = log_e_lately(x) >= NEED
    assert not lately[:, :2000].any()
    assert lately.any(dim=1).double().mean() >= 0.95
    assert not (log_e(x, side=-1) >= NEED).any()


# What is counted


@given(gains, st.sampled_from([CLIP, 2.0]), st.data())
def test_going_on_from_json_anywhere_gives_the_same_bits(
    gains: list[float], clip: float, data: st.DataObject
) -> None:
    start = replace(OPEN, clip=clip)
    cut = data.draw(st.integers(0, len(gains)))
    events = [told(gain, place, arrived=place % 5) for place, gain in enumerate(gains)]
    events.sort(key=lambda one: (one.window, one.place))
    whole = count_all(start, events)
    resumed = count_all(kept(count_all(start, events[:cut])), events[cut:])
    assert resumed == whole
    assert json.dumps(dump(resumed)) == json.dumps(dump(whole))


@given(losses, losses, st.floats(0.1, 50))
def test_clipping_never_flips_the_sign(challenger: float, incumbent: float, clip: float) -> None:
    one = replace(told(0, 0), challenger=challenger, incumbent=incumbent)
    seen = clipped_gain(one, clip)
    assert seen <= 0 or challenger < incumbent
    assert seen >= 0 or challenger > incumbent
    assert -clip <= seen <= clip
    if max(challenger, incumbent) <= clip:
        assert seen == incumbent - challenger
    before = replace(OPEN, clip=clip)
    after = count(before, one)
    sign = (better_by(after) > better_by(before)) - (better_by(after) < better_by(before))
    if abs(seen) > 1e-9 * clip:
        assert sign == math.copysign(1, seen)
        assert (worse_by(after) < 0) == (seen > 0)


@given(gains, st.lists(st.floats(-9, 9), min_size=1, max_size=9))
def test_labels_of_events_from_before_the_snapshot_never_count(
    gains: list[float], early: list[float]
) -> None:
    old = [told(gain, place - 100, arrived=place % 3) for place, gain in enumerate(early)]
    with_old = count_all(count_all(OPEN, old), [told(gain, place) for place, gain in enumerate(gains)])
    assert with_old.early == len(early)
    assert replace(with_old, early=0, mark=None) == replace(counted(gains), mark=None)
    assert with_old.events == len(gains)  # what arrives with the snapshot in place counts


@pytest.mark.parametrize("loss", [math.nan, -0.1])
@pytest.mark.parametrize("side", ["challenger", "incumbent"])
def test_a_loss_that_is_none_is_an_error_that_names_the_event(side: str, loss: float) -> None:
    bad: dict[str, Any] = asdict(told(0.5, 7)) | {side: loss}
    with pytest.raises(ValueError, match=f"event 'e7'.*{side}"):
        count(OPEN, Paired(**bad))
    with pytest.raises(ValueError, match="event 'e7'"):
        count(OPEN, Paired(**bad | {"arrived": 0}))  # also where it would not have counted


def test_an_event_counts_once_and_in_the_order_of_the_ledger() -> None:
    wager = counted([0.1, 0.2, 0.3])
    for place in (0, 1, 2):
        with pytest.raises(ValueError, match=f"event 'e{place}'.*not behind"):
            count(wager, told(0.1, place))
    late = replace(told(0.1, 0), window=4)
    assert count(wager, late).events == 4
    with pytest.raises(ValueError, match="before it came"):
        count(wager, replace(late, arrived=5))


@given(gains)
def test_exchanging_the_two_exchanges_what_is_said_of_them(gains: list[float]) -> None:
    one, other = counted(gains), counted([-g for g in gains])
    assert (one.ahead, one.behind) == (other.behind, other.ahead)
    assert gain_at_least(one, ALPHA) == -gain_at_most(other, ALPHA)


# What is read off it


@given(gains.filter(bool), st.floats(1e-6, 0.5))
def test_the_bounds_enclose_the_mean_and_say_what_the_evidence_says(gains: list[float], alpha: float) -> None:
    wager = counted(gains)
    mean = gain(wager)
    assert mean is not None
    low, high = gain_at_least(wager, alpha), gain_at_most(wager, alpha)
    assert -CLIP <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= CLIP
    if low > -CLIP:
        assert better_by(wager, low) == pytest.approx(-math.log(alpha), abs=1e-6)
    if high < CLIP:
        assert worse_by(wager, -high) == pytest.approx(-math.log(alpha), abs=1e-6)
    assert gain_at_least(wager, alpha / 2) <= low


def test_nothing_counted_says_nothing() -> None:
    assert gain(OPEN) is None
    assert better_by(OPEN) == worse_by(OPEN) == 0
    assert worse_lately(OPEN) == pytest.approx(0)
    assert (gain_at_least(OPEN, ALPHA), gain_at_most(OPEN, ALPHA)) == (-CLIP, CLIP)


@pytest.mark.parametrize(
    "change",
    [
        {"fractions": [0.5]},
        {"more": 1},
        {"ahead": [0.0]},
        {"behind": [math.nan] * len(FRACTIONS)},
        {"gained": math.inf},
    ],
)
def test_what_is_no_wager_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="count again"):
        load(dump(counted([1.0])) | change)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan, math.inf])
def test_a_clip_that_bounds_nothing_is_refused(clip: float) -> None:
    with pytest.raises(ValueError, match="clipped at"):
        replace(OPEN, clip=clip)
