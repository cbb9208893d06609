"""A snapshot in a process of its own: the same answers, and what it does there stays there."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import pytest

from priorflow.learning import model_spec
from priorflow.serving.apart import Apart, Unwell
from priorflow.serving.version import answer_spec
from tests.app.streams import small_settings
from tests.app.versions import Published, published

pytestmark = pytest.mark.slow
TEXT = "the kernel module will not boot"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published(small_settings(tmp_path_factory.mktemp("apart"), None))


def made(chain: Published, again_s: float = 0.0) -> Apart:
    settings = chain.settings
    threads = settings.learn.threads
    return Apart(model_spec(settings), answer_spec(settings), threads=threads, again_s=again_s)


@pytest.fixture(scope="module")
def apart(chain: Published) -> Iterator[Apart]:
    """One for all that leave it as it was: whoever asks finds it started."""
    with closing(made(chain)) as shared:
        yield shared


def process(apart: Apart) -> int:
    assert apart._process is not None
    return apart._process.pid


def test_it_answers_the_same_bits_at_the_lowest_priority(chain: Published, apart: Apart) -> None:
    here, there = chain.answerer(), apart.load(chain.head, chain.posterior)
    for text in (TEXT, "win cheap cash now", 'quotes " and\nlines'):
        assert there.answer(text) == here.answer(text)
    assert os.getpriority(os.PRIO_PROCESS, process(apart)) == 19


def test_one_that_was_killed_is_started_again_and_knows_its_snapshot(chain: Published, apart: Apart) -> None:
    there = apart.load(chain.head, chain.posterior)
    before = there.answer(TEXT)
    os.kill(process(apart), signal.SIGKILL)
    with suppress(Unwell):  # what it was asked as it died
        there.answer(TEXT)
    assert there.answer(TEXT) == before


def test_one_that_dies_of_what_it_is_asked_is_told_and_not_started_over_and_over(
    chain: Published,
) -> None:
    with closing(made(chain, again_s=60.0)) as apart:
        there = apart.load(chain.head, chain.posterior)
        os.kill(process(apart), signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(Unwell, match=r"gone|started again soon"):
                there.answer(TEXT)


def test_what_it_cannot_load_is_told_in_its_words(chain: Published, apart: Apart) -> None:
    with pytest.raises(Unwell, match="NothingLearned"):
        apart.load(replace(chain.head, labels=()), chain.posterior)
    with pytest.raises(Unwell):
        apart.load(replace(chain.head, chain="other"), b"no tensors")
    assert apart.load(chain.head, chain.posterior).answer(TEXT).label


def test_of_many_the_last_two_are_held_and_an_older_one_is_loaded_again(
    chain: Published, apart: Apart
) -> None:
    each = [apart.load(replace(chain.head, chain=f"chain {i}"), chain.posterior) for i in range(4)]
    assert len({str(one.answer(TEXT)) for one in each}) == 1


def test_closed_while_it_is_being_started_it_ends_at_once(
    chain: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes comes while the process is being made, and must not wait until it has loaded a model."""
    apart = made(chain)
    closer = threading.Thread(target=apart.close)
    popen = subprocess.Popen

    def slowly(*said: Any, **more: Any) -> subprocess.Popen[bytes]:
        monkeypatch.undo()
        closer.start()
        while not apart._closed:
            pass
        closer.join(0.1)  # it waits for the turn now
        return popen(*said, **more)

    monkeypatch.setattr("priorflow.serving.apart._PROGRAM", "import time; time.sleep(30)")
    monkeypatch.setattr("priorflow.serving.apart.subprocess.Popen", slowly)
    begun = time.monotonic()
    with pytest.raises(Unwell, match="gone"):
        apart.load(chain.head, chain.posterior)
    closer.join(60)
    assert time.monotonic() - begun < 20


def test_after_the_end_it_answers_nothing(chain: Published, apart: Apart) -> None:
    there = apart.load(chain.head, chain.posterior)
    pid = process(apart)
    apart.close()
    with pytest.raises(Unwell, match="has ended"):
        there.answer(TEXT)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
