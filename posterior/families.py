"""The families there are. A new one is one file and one line: here, or in the configuration.

`examples/row_gaussian.py` is one that this file does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from posterior.bhpeft import BhPeft
from posterior.blob import Blob
from posterior.bora import Bora
from posterior.family import Family, Part
from posterior.gaussian_kron import GaussianKron
from posterior.gaussian_lowrank import GaussianLowRank
from posterior.monteclora import MonteClora
from posterior.point import Point

FAMILIES: Final[Mapping[str, Callable[..., Family[Any, Any]]]] = {
    "bhpeft": BhPeft,
    "blob": Blob,
    "bora": Bora,
    "gaussian_kron": GaussianKron,
    "gaussian_lowrank": GaussianLowRank,
    "monteclora": MonteClora,
    "point": Point,
}

# What a family adapts where nothing is said; LoRA alone if it is not named here.
PARTS: Final[Mapping[str, tuple[Part, ...]]] = {"bhpeft": ("lora", "adapter", "prefix")}


def family_class(name: str) -> Callable[..., Family[Any, Any]]:
    """Return what makes a family: one of those above, or the user's own, named `module:Class`.

    A name that is neither is a ValueError that lists the known.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    module, colon, kind = name.partition(":")
    if not colon:
        msg = f"unknown family {name!r}; there are {', '.join(sorted(FAMILIES))}, or name yours module:Class"
        raise ValueError(msg)
    try:
        made: Callable[..., Family[Any, Any]] = getattr(import_module(module), kind)
    except (ImportError, AttributeError) as missing:
        msg = f"family {name!r} cannot be imported: {missing}"
        raise ValueError(msg) from missing
    return made


def make_family(name: str, options: Mapping[str, Any]) -> Family[Any, Any]:
    """Return the family of this name; an unknown name or option is a ValueError that says what is known."""
    maker = family_class(name)
    try:
        return maker(**options)
    except TypeError as unknown:
        msg = f"family {name!r} does not take {sorted(options)}: {unknown}"
        raise ValueError(msg) from unknown
