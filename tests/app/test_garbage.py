"""The collector looks less often during a run, and as before after it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from priorflow.garbage import seldom_collected


@pytest.fixture(autouse=True)
def _all_is_looked_at() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.freeze()


def test_the_collector_is_as_before_afterwards_however_it_ends() -> None:
    before = gc.get_threshold()
    with suppress(ZeroDivisionError), seldom_collected():
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > 0
        _ = 1 // 0
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_what_was_left_out_before_stays_so() -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    with seldom_collected():
        pass
    assert gc.get_freeze_count() >= before > 0


def test_cycles_made_during_a_run_are_still_found() -> None:
    looks = list[str]()

    def note(phase: str, _: object) -> None:
        looks.append(phase)

    gc.callbacks.append(note)
    try:
        with seldom_collected():
            looks.clear()
            alive = [list[int]() for _ in range(2 * gc.get_threshold()[0])]
    finally:
        gc.callbacks.remove(note)
    assert alive
    assert "stop" in looks
