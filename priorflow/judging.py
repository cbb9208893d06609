"""How the forecasts of a window are judged, for its report and for the drift detectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from priorflow.config import Settings
from priorflow.scores import Prediction, best_guess, chance, score
from stream.plan import Member
from trainers.abstention import CONFIDENCES, tally
from trainers.language import NATS, TOKENS
from trainers.parts import Scored

Judge = Callable[[Sequence[Member]], Scored]


def scorer(settings: Settings) -> Judge:
    """Return how these settings have forecasts judged."""
    if settings.model.objective == "tokens":
        return token_scores
    return lambda members: class_scores(members, settings.learn.pi_new)


def class_scores(members: Sequence[Member], pi_new: float) -> Scored:
    """Score forecasts of classes, those of new ones included."""
    seen = [m for m in members if m.forecast]
    if not seen:
        return Scored(_numbers(0) | {CONFIDENCES: []}, ())
    total = score([Prediction(0, m.label, m.forecast) for m in seen], pi_new=pi_new)
    numbers = _numbers(total.count, accuracy=total.accuracy, nll=total.nll, ece=total.ece, brier=total.brier)
    told = tally(map(partial(_sure, pi_new=pi_new), seen))
    return Scored(numbers | {CONFIDENCES: [[*row] for row in told]}, [_event(m, pi_new) for m in seen])


def token_scores(members: Sequence[Member]) -> Scored:
    """Score forecasts of tokens: nats a token, and perplexity. No token is right or wrong.

    A detector of surprise sees each text's nats a token; one of errors sees none.
    """
    said = [m.forecast for m in members if m.forecast and m.forecast[TOKENS]]
    tokens = sum(forecast[TOKENS] for forecast in said)
    if not tokens:
        return Scored(_numbers(0) | {"tokens": 0, "perplexity": None}, ())
    nll = math.fsum(forecast[NATS] for forecast in said) / tokens
    numbers = _numbers(len(said), nll=nll) | {"tokens": int(tokens), "perplexity": math.exp(nll)}
    return Scored(numbers, [(False, forecast[NATS] / forecast[TOKENS]) for forecast in said])


def told(report: Mapping[str, Any]) -> str:
    """Say how a window was foretold."""
    if not report["foretold"]:
        return "nothing foretold yet"
    if report["accuracy"] is None:
        return f"foretold {report['tokens']} tokens at perplexity {report['perplexity']:.1f}"
    return f"foretold {report['accuracy']:.3f} right, nll {report['nll']:.2f}, ece {report['ece']:.3f}"


def _numbers(foretold: int, **scores: float) -> dict[str, Any]:
    return {"foretold": foretold, "accuracy": None, "nll": None, "ece": None, "brier": None, **scores}


def _sure(member: Member, *, pi_new: float) -> tuple[float, bool]:
    """Return the probability of the best guess, and whether that was right."""
    assert member.forecast is not None
    guess = best_guess(member.forecast)
    return chance(member.forecast, guess, pi_new=pi_new), guess == member.label


def _event(member: Member, pi_new: float) -> tuple[bool, float]:
    assert member.forecast is not None
    p = chance(member.forecast, member.label, pi_new=pi_new)
    return best_guess(member.forecast) != member.label, -math.log(p)
