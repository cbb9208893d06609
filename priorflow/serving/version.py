"""A version that can answer: a snapshot, its belief ready to be asked, and when it withholds an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from posterior.family import ONE_TASK
from posterior.snapshot import Snapshot
from priorflow.config import Settings
from priorflow.learning import family_spec
from trainers.abstention import CONFIDENCES, Abstention, abstention
from trainers.activations import Activations
from trainers.answer import Answer, AnswerSpec, answerer_of
from trainers.line import in_force
from trainers.model import AdaptedModel


class Answering(Protocol):
    """Who is asked."""

    def answer(self, text: str, task: str = ONE_TASK) -> Answer:
        """Answer one text."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """`name` is the registry's number, None while unpublished; `rule` None: nothing is ever withheld.

    `settled` False: the rule was not chosen by the ledger's rows, for they could not be read. It is one that
    was kept, or withholds everything, and is chosen anew as soon as they can be.
    """

    snapshot: Snapshot
    answerer: Answering
    rule: Abstention | None
    name: str | None = None
    settled: bool = True

    @property
    def provisional(self) -> bool:
        """Tell whether everything is withheld only because nothing could be looked up."""
        return not self.settled and self.rule is not None and not self.rule.events


def answer_spec(settings: Settings) -> AnswerSpec:
    """Return how the settings have snapshots asked: by as many draws as `serve.draws` says, if it does."""
    return AnswerSpec(
        family=family_spec(settings),
        chain_seed=settings.chain.seed,
        draws=settings.learn.draws if settings.serve.draws is None else settings.serve.draws,
        pi_new=settings.learn.pi_new,
    )


def rule_of(settings: Settings, history: Sequence[Snapshot], snapshot: Snapshot) -> Abstention | None:
    """Return when to withhold answers, by the forecasts of the last windows in force up to this one.

    Without a history that is always: one window is no substitute for `serve.risk_windows`.
    """
    serve = settings.serve
    if serve.risk is None:
        return None
    line = in_force(history, snapshot) if history else ()
    told = [row.report[CONFIDENCES] for row in line if row.report.get(CONFIDENCES)]
    return abstention(told[-serve.risk_windows :], risk=serve.risk, alpha=serve.risk_alpha)


def ready(
    settings: Settings,
    model: AdaptedModel,
    activations: Activations,
    snapshot: Snapshot,
    posterior: bytes,
    *,
    rule: Abstention | None,
    name: str | None,
    settled: bool,
) -> Version:
    """Make a snapshot ready to answer; NothingLearned if it knows no class."""
    answerer = answerer_of(
        model,
        activations,
        answer_spec(settings),
        posterior,
        labels=snapshot.labels,
        window=snapshot.index,
    )
    return Version(snapshot=snapshot, answerer=answerer, rule=rule, name=name, settled=settled)
