"""What goes over the wire: texts in, answers out."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from priorflow.serving.version import Version
from stream.prediction_id import FORM, prediction_id
from stream.record import MAX_ID_CHARS
from trainers.answer import Answer

_ONE: Final[dict[str, Any]] = {"id": "mail-17", "text": "Kernel 2.4.19 is out, and it boots here."}
_ANSWER: Final[dict[str, Any]] = {
    "event_id": "mail-17",
    "prediction_id": "pf1.bWFpbC0xNw.59bac49681ef",
    "label": "linux",
    "probabilities": {"linux": 0.91, "spam": 0.06},
    "novelty": 0.03,
    "interval": [0.84, 0.95],
    "uncertainty": {"total": 0.37, "aleatoric": 0.29, "epistemic": 0.08},
    "abstain": False,
    "risk": 0.1,
    "snapshot": "59bac49681ef12ada312a9abed720cd18cee7b8faf36def46f338e2e68beb4de",
    "version": "8",
}


def _readable(text: str) -> str:
    if "\0" in text:
        msg = "holds a null character"
        raise ValueError(msg)
    return text


def _no_prediction(name: str) -> str:
    if FORM.fullmatch(name):
        msg = "has the form of a prediction id"
        raise ValueError(msg)
    return name


# What a validator refuses, OpenAPI says by a pattern: the two are one rule.
_READABLE: Final = r"^[^\x00]*$"
_UNTAKEN: Final = rf"^(?!{FORM.pattern}$)[^\x00]*$"
Readable = AfterValidator(_readable)
Name = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_CHARS, json_schema_extra={"pattern": _READABLE}),
    Readable,
]
EventName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ID_CHARS, json_schema_extra={"pattern": _UNTAKEN}),
    Readable,
    AfterValidator(_no_prediction),
]


class EventIn(BaseModel):
    """A text to be judged."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_ONE]})

    text: Annotated[str, Field(min_length=1, json_schema_extra={"pattern": _READABLE}), Readable]
    """What is to be judged."""
    id: EventName | None = None
    """Your name for it, under which its label will come; made up if you give none."""
    task: Name | None = None
    """The task or group it belongs to, if the chain has any."""


class EventsIn(BaseModel):
    """Several texts; one version answers all of them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"events": [_ONE]}]})

    events: Annotated[list[EventIn], Field(min_length=1)]


def _kind(body: Any) -> str:
    return "many" if isinstance(body, EventsIn) or (isinstance(body, dict) and "events" in body) else "one"


# Told apart before they are read: an error is then about what was meant, not about both.
Asked = Annotated[Annotated[EventIn, Tag("one")] | Annotated[EventsIn, Tag("many")], Discriminator(_kind)]


class DoubtOut(BaseModel):
    """Entropy of the answer in nats, and what it is made of: total = aleatoric + epistemic."""

    total: float
    aleatoric: float
    """What every hypothesis is unsure of by itself: more evidence will not help."""
    epistemic: float
    """What hypotheses disagree about: more evidence may."""


class AnswerOut(BaseModel):
    """An answer with its doubt, from a version somebody can name."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ANSWER]})

    event_id: str
    prediction_id: str
    """Names event and snapshot; a label may come back under it."""
    label: str
    """The likeliest class that has a name."""
    probabilities: dict[str, float]
    """Of the known classes; they and `novelty` sum to 1."""
    novelty: float
    """Probability of a class that nobody has seen."""
    interval: tuple[float, float]
    """What nine tenths of the weight draws give to `label`."""
    uncertainty: DoubtOut
    abstain: bool
    """Whether the answer is too unsure for the stated risk."""
    risk: float | None
    """Share of answers given that may be wrong; null: nothing is withheld."""
    snapshot: str
    """Sha of the snapshot that answered."""
    version: str | None
    """Its number in the registry; null until it is published."""


class AnswersOut(BaseModel):
    """Answers in the order of the events."""

    answers: list[AnswerOut]


def named(event: EventIn) -> str:
    """Return the event's name; one made up if it has none."""
    return event.id if event.id is not None else uuid4().hex


def answered(name: str, answer: Answer, version: Version) -> AnswerOut:
    """Write down what a version said of the event of this name."""
    rule, sha = version.rule, version.snapshot.sha
    return AnswerOut(
        event_id=name,
        prediction_id=prediction_id(name, sha),
        label=answer.label,
        probabilities=dict(answer.probabilities),
        novelty=answer.novelty,
        interval=answer.interval,
        uncertainty=DoubtOut(total=answer.total, aleatoric=answer.aleatoric, epistemic=answer.epistemic),
        abstain=rule is not None and rule.abstains(answer.confidence),
        risk=None if rule is None else rule.risk,
        snapshot=sha,
        version=version.name,
    )
