"""Values of which there is one for every record.

A frozen dataclass takes three to six times as long to make as a plain one, for each field is set through
`object.__setattr__`; history is read by the million records, with half a dozen values for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(*, order: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a class a slotted dataclass that is equal and hashed by its fields, and is not written to.

    The type checker holds that, not the run time: what it passes over, such as `setattr`, would work.
    """
    return dataclass(slots=True, unsafe_hash=True, order=order)
