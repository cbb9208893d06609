"""One set of weights out of a belief: its mean or one draw, for one task.

What a belief says is a mixture over draws. Who can take one set of weights only gets the mean, or one of the
very draws that the mixture is made of: those of `trainers.evaluate`, keyed by chain, window and number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from posterior.family import ONE_TASK, Draw, Family
from posterior.hierarchy import Hierarchy, known_tasks
from trainers.evaluate import draws_of
from trainers.noise import key

_TWO: Final = ("a", "b")  # any two tasks


class NotSingle(ValueError):
    """What was asked for is no one set of weights; the message says what is to be named."""


@dataclass(frozen=True, slots=True)
class Whose:
    """The task whose weights are meant: None where all have the same, or where it is one nobody has seen."""

    task: str | None
    new: bool = False


def whose(family: Family[Any, Any], state: Any, *, named: str | None, new: bool) -> Whose:
    """Return the task that is meant by a name, or by none.

    A new task's mean is that of the tasks' shared centre. It is meant too where no task was seen yet, as the
    one task is where there is one. NotSingle says what there is.
    """
    if not _apart(family, state):
        if named is not None or new:
            msg = f"the family {family.name!r} has the same weights for all tasks; name none"
            raise NotSingle(msg)
        return Whose(None)
    known = known_tasks(state) if isinstance(state, Hierarchy) else None
    if new or (named is None and known == []):
        return Whose(None, new=True)
    return Whose(_named(known, named))


def drawn(
    family: Family[Any, Any], state: Any, whose: Whose, *, number: int | None, chain_seed: int, window: int
) -> Draw:
    """Return draw `number` (from 0) of those that predict from this state, or its mean; n = 1.

    `window` is the index of the state's snapshot. NotSingle where the family has no draws.
    """
    task = _opened_as(state, whose)
    if number is not None and not family.noise(family.open(state, [task])):
        msg = f"the family {family.name!r} says the same at every draw; leave --draw out"
        raise NotSingle(msg)
    count, seed = (0 if number is None else number + 1), key(chain_seed, window)
    return draws_of(family, state, tasks=[task], count=count, seed=seed)[-1]([task])


def _opened_as(state: Any, whose: Whose) -> str:
    """Return the name under which a family opens this task; a new one's is longer than any known."""
    if not whose.new:
        return ONE_TASK if whose.task is None else whose.task
    return "".join(known_tasks(state) if isinstance(state, Hierarchy) else ["new"]) + "+"


def _apart(family: Family[Any, Any], state: Any) -> bool:
    """Tell whether two tasks have weights of their own; a family says so by its mean, whosever it is."""
    mean = family.mean(family.open(state, _TWO), _TWO)
    return any(len(weights) == len(_TWO) for weights in mean.values())


def _named(known: list[str] | None, named: str | None) -> str:
    """Return a task that there is; `known` None is a family of the user's own, whose tasks we cannot list."""
    one = known[0] if known is not None and len(known) == 1 else None
    task = one if named is None else named
    if task is not None and (known is None or task in known):
        return task
    there = "" if not known else f"; there are {', '.join(map(_shown, known))}"
    lack = "every task has weights of its own: name one" if named is None else f"there is no task {named!r}"
    msg = f"{lack}{there}. --new-task means one that nobody has seen"
    raise NotSingle(msg)


def _shown(task: str) -> str:
    return "'' (of events that name none)" if task == ONE_TASK else repr(task)
