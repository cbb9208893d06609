"""A class takes another name, going forward: in what waits, in what was foretold, in what is yet to come.

Which row of the head a class has does not change, and no evidence is rewritten. A label that still comes
under an old name is taken under the new one; its bytes stay as they came. Where another class bears that
name, the two are one from there on: it has the rows of both, and what was foretold of them adds up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from stream.plan import Forecast, canonical_json
from stream.record import Label, Record

RENAMED: Final = "renamed"
_EVENT_FORECAST, _ORPHAN_LABEL, _MEMBER_LABEL, _MEMBER_FORECAST = 7, 1, 2, 11  # places in saved rows


@final
@dataclass(frozen=True, slots=True)
class Names:
    """What became of old names: each leads to the present one at once."""

    present: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Tell whether anything was renamed."""
        return bool(self.present)

    def of(self, label: str) -> str:
        """Return the present name of a class."""
        return self.present.get(label, label)

    def mean(self, label: str) -> bool:
        """Tell whether a name is one that a renaming made, or did away with."""
        return label in self.present or label in self.present.values()

    def then(self, old: str, new: str) -> Names:
        """Return the names once `old` is called `new`; a class may get a former name back."""
        onward = {name: new if at == old else at for name, at in self.present.items()} | {old: new}
        return Names({name: at for name, at in sorted(onward.items()) if name != at})

    def told(self, forecast: Forecast) -> dict[str, float]:
        """Return a forecast under present names; of classes that became one it adds up."""
        return _summed((self.of(label), p) for label, p in forecast.items())

    def named(self, record: Record) -> Record:
        """Return a label's record under the present name; any other as it is."""
        body = record.body
        if not isinstance(body, Label) or body.label not in self.present:
            return record
        told = body.model_copy(update={"label": self.of(body.label)})
        return Record(record.position, record.sha256, told, record.raw)

    def dump(self) -> dict[str, Any]:
        """Return JSON values by name; nothing where nothing was renamed."""
        return {RENAMED: dict(self.present)} if self.present else {}


AS_THEY_CAME: Final = Names()


def names_of(data: Mapping[str, Any]) -> Names:
    """Return the names that a parsed state of the stream knows."""
    return Names(data.get(RENAMED, {}))


def told_by_name(names: Sequence[str], numbers: Sequence[float]) -> dict[str, float]:
    """Return a forecast of these columns; numbers of one name add up, for its rows are one class."""
    return _summed(zip(names, numbers, strict=True))


def renamed(state: bytes, old: str, new: str) -> bytes:
    """Return a saved state in which a class is called `new`; counts and order are what they were.

    Another class of that name stays a row of its own, and the two are one.
    """
    data = json.loads(state)
    now = {old: new}
    data["classes"] = [now.get(label, label) for label in data["classes"]]
    for row in data["store"]["events"]:
        row[_EVENT_FORECAST] = _forecast(row[_EVENT_FORECAST], now)
    for row in data["store"]["orphans"]:
        row[_ORPHAN_LABEL] = now.get(row[_ORPHAN_LABEL], row[_ORPHAN_LABEL])
    for row in data["window"]:
        row[_MEMBER_LABEL] = now.get(row[_MEMBER_LABEL], row[_MEMBER_LABEL])
        row[_MEMBER_FORECAST] = _forecast(row[_MEMBER_FORECAST], now)
    names = names_of(data).then(old, new)
    data.pop(RENAMED, None)
    return canonical_json(data | names.dump())


def _forecast(said: Mapping[str, float] | None, now: Mapping[str, str]) -> dict[str, float] | None:
    return None if said is None else _summed((now.get(label, label), p) for label, p in said.items())


def _summed(told: Iterable[tuple[str, float]]) -> dict[str, float]:
    forecast: dict[str, float] = {}
    for name, p in told:
        forecast[name] = forecast[name] + p if name in forecast else p
    return forecast
