"""The families there are. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from posterior.blob import Blob
from posterior.bora import Bora
from posterior.family import Family, Part
from posterior.gaussian_lowrank import GaussianLowRank
from posterior.monteclora import MonteClora
from posterior.point import Point

FAMILIES: Final[Mapping[str, Callable[..., Family[Any, Any]]]] = {
    "blob": Blob,
    "bora": Bora,
    "gaussian_lowrank": GaussianLowRank,
    "monteclora": MonteClora,
    "point": Point,
}

# What a family adapts where nothing is said; LoRA alone if it is not named here.
PARTS: Final[Mapping[str, tuple[Part, ...]]] = {}


def make_family(name: str, options: Mapping[str, Any]) -> Family[Any, Any]:
    """Return the family of this name; an unknown name or option is a ValueError that lists the known."""
    if name not in FAMILIES:
        msg = f"unknown family {name!r}; there are {', '.join(sorted(FAMILIES))}"
        raise ValueError(msg)
    try:
        return FAMILIES[name](**options)
    except TypeError as unknown:
        msg = f"family {name!r} does not take {sorted(options)}: {unknown}"
        raise ValueError(msg) from unknown
