"""Has one policy foretold better than another? A bet on paired losses that may be watched all the time.

    x_i    = (min(incumbent's loss, c) - min(challenger's loss, c)) / c            in [-1, 1]
    ahead  : W_t(f) = prod_i (1 + f x_i)            for each f in FRACTIONS: constant bets on the challenger
    behind : prod_i (1 - f x_i)                     the same bets against it
    lately : sum_j 1/(j (j+1)) prod_{i>=j} (1 - f x_i)       bets against it, begun anew before every event

Write m_i for the mean of x_i given everything counted before it, A_t for m_1 + ... + m_t. The product of
(1 + f x_i) / (1 + f m_i) is a nonnegative martingale of mean 1, and 1 + f m <= exp(f m). So with
probability 1 - alpha, mean_f W_t(f) exp(-f A_t) is below 1 / alpha at all t at once (Ville). Nothing is
assumed about stationarity or independence; what is bounded is the mean so far, which drift may move.

Bets are constant because that is what carries the proof to a mean that moves; bets that learn the
variance are sharper, and valid only if the challenger is never better at any moment.

Sources: Waudby-Smith and Ramdas, JRSS-B 86 (2024), arXiv:2010.09686 (betting on bounded means, and a
mixture of constant bets); Choe and Ramdas, Operations Research 72 (2024), arXiv:2110.00115 (forecasters
compared by their mean so far); Shin, Ramdas and Rinaldo, arXiv:2203.03532 (sums over starting times).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

FRACTIONS: Final[tuple[float, ...]] = tuple(7 / 2**k for k in range(3, 9))
"""Shares of what can be lost, 7/8 down to 7/256. A bet of 1 could lose everything at one event."""

CLIP: Final = 5.0
"""Nats. Just above what a class nobody had seen costs (4.6 at `pi_new` 0.01), so it counts in full."""

_HALVINGS: Final = 80  # of an interval some tens of nats wide: beyond what a float resolves


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """One labelled event as both foretold it; losses are -log p(label) in nats, infinity allowed.

    `arrived` is the number of windows closed before the event came, `window` the one that learned it and
    `place` its place there. (window, place) is the order of the ledger.
    """

    event_id: str
    window: int
    place: int
    arrived: int
    challenger: float
    incumbent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wager:
    """The evidence so far. Small, and the whole of it: counting on from here gives the same bits.

    `challenger` and `incumbent` name who is compared (a sha, or a policy). `since` is the index of the
    younger snapshot of the two; only events that arrived after it count, the others are `early`. `mark`
    is the last event seen, `gained` the sum of clipped differences in nats; the rest are logarithms of
    wealth, one for each bet. Other levels or margins need no recount, another `clip` does.
    """

    challenger: str
    incumbent: str
    since: int
    clip: float = CLIP
    events: int = 0
    early: int = 0
    mark: tuple[int, int] | None = None
    gained: float = 0.0
    ahead: tuple[float, ...] = (0.0,) * len(FRACTIONS)
    behind: tuple[float, ...] = (0.0,) * len(FRACTIONS)
    lately: tuple[float, ...] = (math.log(0.5),) * len(FRACTIONS)  # the stake on the first event

    def __post_init__(self) -> None:
        if not 0 < self.clip < math.inf:
            msg = f"losses are clipped at {self.clip}; it must be a positive number of nats"
            raise ValueError(msg)


def count(wager: Wager, told: Paired) -> Wager:
    """Count one event; ValueError names an event whose loss is no number, or that is out of order."""
    _check(wager, told)
    if told.arrived < wager.since:
        return replace(wager, early=wager.early + 1, mark=(told.window, told.place))
    gain = clipped_gain(told, wager.clip)
    x = gain / wager.clip
    n = wager.events + 1
    return replace(
        wager,
        events=n,
        mark=(told.window, told.place),
        gained=wager.gained + gain,
        ahead=_bet(wager.ahead, x),
        behind=_bet(wager.behind, -x),
        lately=tuple(_log_add(w, -math.log((n + 1) * (n + 2))) for w in _bet(wager.lately, -x)),
    )


def count_all(wager: Wager, told: Iterable[Paired]) -> Wager:
    """Count events in the order of the ledger."""
    for one in told:
        wager = count(wager, one)
    return wager


def clipped_gain(told: Paired, clip: float) -> float:
    """Return how many nats better the challenger did, each loss counted up to `clip`.

    The same cap on both keeps this a difference of two scores: its sign is that of the raw difference, or
    it is 0 where both were beyond the cap.
    """
    return min(told.incumbent, clip) - min(told.challenger, clip)


def better_by(wager: Wager, nats: float = 0.0) -> float:
    """Return the log e-value against "so far the challenger is better by at most `nats` per event".

    At least log(1 / alpha), ever, with probability at most alpha while that is true.
    """
    return _against(wager.ahead, nats * wager.events / wager.clip)


def worse_by(wager: Wager, nats: float = 0.0) -> float:
    """Return the log e-value against "so far the challenger is worse by at most `nats` per event"."""
    return _against(wager.behind, nats * wager.events / wager.clip)


def worse_lately(wager: Wager) -> float:
    """Return the log e-value against "on no stretch that ends now was the challenger worse".

    For one that did well for months and then turned: `worse_by` would first have to lose all it had won.
    A turn after n events costs about 2 log n nats of evidence more than one that was there from the start.
    """
    unstaked = -math.log(wager.events + 2)
    return _log_add(_log_mean(wager.lately), unstaked)


def gain(wager: Wager) -> float | None:
    """Return the mean clipped difference in nats per event, positive if the challenger did better."""
    return wager.gained / wager.events if wager.events else None


def gain_at_least(wager: Wager, alpha: float) -> float:
    """Return a lower bound on the mean so far, nats per event; right at all times at once at 1 - alpha."""
    return _bound(wager, wager.ahead, alpha)


def gain_at_most(wager: Wager, alpha: float) -> float:
    """Return an upper bound on the mean so far, nats per event; right at all times at once at 1 - alpha."""
    return -_bound(wager, wager.behind, alpha)


def dump(wager: Wager) -> dict[str, Any]:
    """Return the wager as JSON values, with the bets it was made of."""
    told = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(wager).items()}
    return {**told, "fractions": list(FRACTIONS)}


def load(told: Mapping[str, Any]) -> Wager:
    """Return the wager that `dump` told of; ValueError if it is none, or was made of other bets."""
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
    if kept.pop("fractions", None) != FRACTIONS or kept.keys() != {f.name for f in fields(Wager)}:
        msg = "this is no wager, or one made of other bets than today's; open a new one and count again"
        raise ValueError(msg)
    wager = Wager(**kept)
    for wealth in (wager.ahead, wager.behind, wager.lately, (wager.gained,) * len(FRACTIONS)):
        if len(wealth) != len(FRACTIONS) or not all(map(math.isfinite, wealth)):
            msg = f"the wager since window {wager.since} is damaged; open a new one and count again"
            raise ValueError(msg)
    return wager


def _check(wager: Wager, told: Paired) -> None:
    for who, loss in (("challenger", told.challenger), ("incumbent", told.incumbent)):
        if not loss >= 0:  # NaN fails here too
            msg = f"event {told.event_id!r}: the {who}'s loss is {loss}, not nats from 0 up"
            raise ValueError(msg)
    if told.arrived > told.window:
        msg = f"event {told.event_id!r}: learned in window {told.window}, before it came ({told.arrived})"
        raise ValueError(msg)
    if wager.mark is not None and (told.window, told.place) <= wager.mark:
        msg = (
            f"event {told.event_id!r}: window {told.window}, place {told.place} is not behind "
            f"{wager.mark}, where counting stands; count each event once, in the order of the ledger"
        )
        raise ValueError(msg)


def _bet(wealth: Sequence[float], x: float) -> tuple[float, ...]:
    return tuple(w + math.log1p(f * x) for w, f in zip(wealth, FRACTIONS, strict=True))


def _against(wealth: Sequence[float], a: float) -> float:
    """Return log mean_f W(f) exp(-f a)."""
    return _log_mean([w - f * a for w, f in zip(wealth, FRACTIONS, strict=True)])


def _bound(wager: Wager, wealth: Sequence[float], alpha: float) -> float:
    """Return the a at which log mean_f W(f) exp(-f a) falls to log(1 / alpha), per event and in nats.

    One bet's own crossing, with and without its share of the mixture, brackets it.
    """
    if not wager.events:
        return -wager.clip
    need = -math.log(alpha)
    alone = [(w - need) / f for w, f in zip(wealth, FRACTIONS, strict=True)]
    low = max(a - math.log(len(FRACTIONS)) / f for a, f in zip(alone, FRACTIONS, strict=True))
    high = max(alone)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _against(wealth, middle) >= need else (low, middle)
    return max(-wager.clip, low * wager.clip / wager.events)


def _log_mean(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(math.fsum(math.exp(w - top) for w in logs) / len(logs))


def _log_add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))
