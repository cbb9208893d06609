"""Drift, seen in how badly the stream was foretold. The only file of the core that knows river.

ADWIN watches the error and the NLL (alarms), HDDMW the error (an early warning). A detector is kept as
the plain numbers it was fed since its last alarm, at most `_REMEMBERED`, and fed again on resume: river's own
form is pickle, which nobody should load, and its detectors are functions of their inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from river.drift import ADWIN
from river.drift.binary import HDDMW

_REMEMBERED: Final = 4000
_KEPT: Final = 1000  # when full, a detector starts again from its newest inputs
_RECENT: Final = 16
_CEILING: Final = 10.0  # nats; one impossible event should not be an alarm by itself


@dataclass(frozen=True, slots=True)
class Alarms:
    """What sounded during a window: names of detectors, and how many events of the window came first."""

    sounded: tuple[tuple[str, int], ...]

    @property
    def drift(self) -> bool:
        """Whether an alarm (not only a warning) sounded."""
        return any(name != "hddmw_error" for name, _ in self.sounded)


@final
class DriftWatch:
    """Three detectors over prequential error (0 or 1) and NLL in nats."""

    def __init__(self, inputs: Mapping[str, Sequence[float]] | None = None) -> None:
        """Start anew, or from `dump`."""
        self._inputs: dict[str, list[float]] = {}
        self._detectors: dict[str, Any] = {}
        for name in ("adwin_error", "adwin_nll", "hddmw_error"):
            self._restart(name, list((inputs or {}).get(name, ())))

    def _restart(self, name: str, inputs: list[float]) -> None:
        kind: Any = HDDMW if name.startswith("hddmw") else ADWIN
        detector = kind()
        for x in inputs:
            detector.update(bool(x) if name.startswith("hddmw") else x)
        self._inputs[name], self._detectors[name] = inputs, detector

    def watch(self, scores: Sequence[tuple[bool, float]]) -> Alarms:
        """Feed (wrong, nll) of events in order; a detector that sounds starts anew."""
        return Alarms(
            tuple(
                (name, i + 1)
                for i, (wrong, nll) in enumerate(scores)
                for name in self._detectors
                if self._feed(name, min(nll, _CEILING) if name.endswith("nll") else float(wrong))
            )
        )

    def _feed(self, name: str, x: float) -> bool:
        detector, inputs = self._detectors[name], self._inputs[name]
        inputs.append(x)
        detector.update(bool(x) if name.startswith("hddmw") else x)
        if detector.drift_detected:
            worse = _worse(inputs)
            self._restart(name, [])
            return worse  # a stream that has become easier is no drift to answer
        if len(inputs) >= _REMEMBERED:
            self._restart(name, inputs[-_KEPT:])
        return False

    def dump(self) -> dict[str, list[float]]:
        """Return the plain numbers to start from again."""
        return {name: list(inputs) for name, inputs in sorted(self._inputs.items())}


def _worse(inputs: Sequence[float]) -> bool:
    """Tell whether the newest inputs are higher than those before them."""
    new, old = inputs[-_RECENT:], inputs[:-_RECENT]
    return not old or sum(new) / len(new) > sum(old) / len(old)
