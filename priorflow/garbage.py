"""What a run asks of Python's cycle collector.

Reading history keeps tens of thousands of records at a time until their place in the order is certain, and
each makes the collector look again at everything that is alive, torch and MLflow included, though
hardly anything here ever forms a cycle. Left alone, that is a third of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 50)  # new objects before a look at the young, and how many looks further


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Leave out what is loaded by now, and look for cycles less often, while the context is open.

    What somebody else had left out before stays so: Python can let go of all or of nothing.
    """
    before, ours = gc.get_threshold(), gc.get_freeze_count() == 0
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if ours:
            gc.unfreeze()
