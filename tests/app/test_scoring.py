"""`priorflow score` on a real Kafka: each event answered once, by a version that is named.

Whatever a text does to the model, and whatever dies.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import final

import pytest

from connectors.kafka_client import KafkaClient, TopicWish, ensure_topics
from connectors.kafka_sink import KafkaSink
from connectors.letters import original, read_letter
from posterior.family import ONE_TASK
from priorflow.case import CASE
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.run import execute
from priorflow.scoring import score
from priorflow.serving.version import Answering
from stream.breaker import TooMuchBad
from stream.prediction_id import event_of
from tests.app.histories import history
from tests.app.scored import Life, Transactions, coming, decide, keys, produce, read, started, until
from tests.app.streams import EVENTS, archived, small_settings, small_stream
from trainers.answer import Answer, answerer_of

pytestmark = pytest.mark.slow
TEXTS = {"m1": "win cheap cash offer now", "m2": "kernel module will not boot", "m3": "what is this"}
POISON = "boom"
LIMIT_S = 120


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a chain whose last snapshot is champion."""
    folder = tmp_path_factory.mktemp("scored")
    made = small_settings(
        folder / "home", archived(small_stream(), folder / "stream"), **{"gate.enabled": False}
    )
    execute(made, until_end=True, console=Silent())
    decide(made, "promote", history(made)[-1].sha)
    return folder


@pytest.fixture
def settings(learned: Path, tmp_path: Path, kafka: KafkaClient, new_topic: Callable[..., str]) -> Settings:
    """Return settings of that chain, with topics of their own."""
    shutil.copytree(learned / "home", tmp_path / "home")
    names = ("answers", "shadow", "dead_letters")
    topics = {f"kafka.topics.{name}": new_topic(name.replace("_", "-")) for name in names}
    ensure_topics(kafka, [TopicWish(name=EVENTS, partitions=3)])  # which the chain's settings name
    return small_settings(
        tmp_path / "home", None, **{"gate.enabled": False, "kafka.bootstrap": kafka.bootstrap, **topics}
    )


def test_every_event_is_answered_once_and_what_cannot_be_read_is_set_aside(
    settings: Settings, kafka: KafkaClient
) -> None:
    produce(kafka, TEXTS)
    sink = KafkaSink(kafka)
    sink.send(
        EVENTS, b"not json", key=b"bad", headers=[("ce_id", b"bad"), ("ce_time", b"2001-09-09T01:46:40Z")]
    )
    sink.flush()
    sink.close()
    assert score(settings, Silent(), until_end=True) == 3
    produce(kafka, {"m4": "cash"})
    assert score(settings, Silent(), until_end=True) == 1

    answers = read(kafka, settings.kafka.topics.answers)
    assert Counter(raw.key for raw in answers) == Counter([b"m1", b"m2", b"m3", b"m4"])
    head = history(settings)[-1].sha
    for raw in answers:
        said = json.loads(raw.value or b"")
        headers = dict(raw.headers)
        assert said["snapshot"] == head
        assert headers["ce_id"].decode() == said["prediction_id"]
        assert headers["ce_type"] == b"priorflow.answer"
        assert event_of(said["prediction_id"]) == (raw.key or b"").decode()
        assert sum(said["probabilities"].values()) + said["novelty"] == pytest.approx(1)
    (letter,) = read(kafka, settings.kafka.topics.dead_letters)
    assert letter.value == b"not json"
    assert dict(letter.headers)["priorflow.stage"] == b"json"


@pytest.mark.timeout(300)
def test_killed_in_a_transaction_alone_and_beside_another_each_event_is_answered_once(
    settings: Settings, kafka: KafkaClient, tmp_path: Path
) -> None:
    """Processes of their own, kill -9, while events come: one alone, then one of two that share a topic."""
    answers, head = settings.kafka.topics.answers, history(settings)[-1].sha
    with ExitStack() as stack:
        transactions = stack.enter_context(closing(Transactions(kafka, answers)))

        def life(name: str) -> Life:
            return stack.enter_context(closing(Life(settings, tmp_path / name)))

        with coming(kafka) as names:
            alone = life("alone")
            until(alone.answers)
            alone.killed_within(transactions)
            dying, survivor = life("dying"), life("survivor")
            until(lambda: dying.answers() and survivor.answers())
            dying.killed_within(transactions)
        wanted = {name.encode() for name in names}
        until(lambda: keys(kafka, answers).keys() >= wanted, look_s=0.5)
        assert survivor.ends() == 0
        until(lambda: not transactions.open())
    written = read(kafka, answers)
    assert Counter(raw.key for raw in written) == Counter(wanted)
    assert {json.loads(raw.value or b"")["snapshot"] for raw in written} == {head}
    assert not read(kafka, settings.kafka.topics.dead_letters)


@final
class Touchy:
    """Answers as a snapshot does, but for texts that hold poison."""

    def __init__(self, answerer: Answering) -> None:
        self._answerer = answerer

    def answer(self, text: str, task: str = ONE_TASK) -> Answer:
        if POISON in text:
            msg = "a tensor that is none"
            raise RuntimeError(msg)
        return self._answerer.answer(text, task)


@pytest.fixture
def touchy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have whoever answers here fail at poison; undone, it does not."""
    monkeypatch.setattr("priorflow.serving.version.answerer_of", lambda *a, **k: Touchy(answerer_of(*a, **k)))
    return monkeypatch


class Died(BaseException):
    """Nothing below may catch it."""


@pytest.mark.usefixtures("touchy")
@pytest.mark.parametrize("step", ["", "after-send", "after-positions", "after-commit"])
def test_a_text_that_makes_the_model_fail_is_one_letter_and_its_neighbours_are_answered(
    settings: Settings, kafka: KafkaClient, step: str
) -> None:
    """Also where the process dies at any step: each event is answered once, or is one letter."""
    texts = {f"{step}{i}": f"{POISON} {i}" if i in {3, 8, 9} else f"kernel {i}" for i in range(12)}
    produce(kafka, texts)
    passed = 0

    def crash(reached: str) -> None:
        nonlocal passed
        passed += reached == step
        if reached == step and passed == 2:
            raise Died

    with suppress(Died):
        score(settings, Silent(), until_end=True, crash=crash)
    score(settings, Silent(), until_end=True)
    topics = settings.kafka.topics
    fine = {name.encode() for name, text in texts.items() if POISON not in text}
    assert keys(kafka, topics.answers) == Counter(fine)
    letters = read(kafka, topics.dead_letters)
    assert Counter(record.key for record in map(original, letters)) == Counter(
        {n.encode() for n in texts} - fine
    )
    sha = history(settings)[-1].sha
    for raw in letters:
        letter = read_letter(raw)
        assert letter is not None
        assert (letter.position.topic, letter.stage) == (EVENTS, "model")
        assert "a tensor that is none" in letter.reason
        assert sha in letter.reason
        assert json.loads(original(raw).value or b"")["text"] == texts[(original(raw).key or b"").decode()]


def test_a_model_that_fails_at_everything_does_not_set_aside_a_topic(
    settings: Settings, kafka: KafkaClient, touchy: pytest.MonkeyPatch
) -> None:
    """It stops with words; once it is well, everything that was not set aside is answered."""
    texts = {f"broken{i}": f"{POISON} {i}" for i in range(40)}
    produce(kafka, texts)
    with pytest.raises(TooMuchBad, match=r"made the model fail.*serve\.breaker"):
        score(settings, Silent(), until_end=True)
    filed = read(kafka, settings.kafka.topics.dead_letters)
    letters = Counter(record.key for record in map(original, filed))
    assert letters.total() <= settings.serve.breaker.run
    touchy.undo()
    assert score(settings, Silent(), until_end=True) == 40 - letters.total()
    answers = keys(kafka, settings.kafka.topics.answers)
    assert answers + letters == Counter({name.encode() for name in texts})


def test_a_shadow_answers_on_a_topic_of_its_own(settings: Settings, kafka: KafkaClient) -> None:
    """Answers are the champion's alone; the shadow's say how far from them they are, and each comes once."""
    candidate, *_, champion = [row.sha for row in history(settings) if row.kind == "learned"]
    decide(settings, "wait", candidate, **{CASE: {}})
    process = started(settings, **{"serve.shadow": "candidate"})
    names = {f"s{i}" for i in range(8)}
    try:
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        next(one for one in lines if one["event"] == "shadow" and one["snapshot"] == candidate)
        produce(kafka, {name: f"cash offer {name}" for name in names})
        answered = 0
        while answered < len(names):
            answered += next(one for one in lines if one["event"] == "answered")["answers"]
        process.send_signal(signal.SIGTERM)
        (told,) = [one for one in lines if one["event"] == "shadow"]
        assert (told["events"], told["dropped"], told["failed"]) == (len(names), 0, 0)
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.communicate()
    written = read(kafka, settings.kafka.topics.answers)
    assert Counter(raw.key for raw in written) == Counter({name.encode() for name in names})
    answers = {raw.key: json.loads(raw.value or b"") for raw in written}
    assert {said["snapshot"] for said in answers.values()} == {champion}
    shadows = read(kafka, settings.kafka.topics.shadow)
    assert Counter(raw.key for raw in shadows) == Counter({name.encode() for name in names})
    for raw in shadows:
        said, beside = json.loads(raw.value or b""), answers[raw.key]
        assert dict(raw.headers)["ce_type"] == b"priorflow.shadow-answer"
        assert said["snapshot"] == candidate
        assert said["beside"]["prediction_id"] == beside["prediction_id"]
        assert said["beside"]["agrees"] == (said["label"] == beside["label"])
