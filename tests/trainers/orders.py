"""Three small windows as orders, and an updater's answers to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from posterior.family import Tensors
from stream.plan import window_seed
from trainers.update import Schedule
from trainers.window import FamilySpec, LearnSpec, Order, Outcome, Updater

LEARN = LearnSpec(schedule=Schedule(epochs=1, batch=8, lr=0.1), draws=3, beta_sample=8)
PANELLED = replace(LEARN, panel=True)
TOPICS = {"linux": "kernel module compiled on the box", "money": "win cheap cash now"}


def mails(window: int, *, swapped: bool = False) -> tuple[tuple[str, str], ...]:
    """Return (text, label) pairs; `swapped` labels everything wrong."""
    names = sorted(TOPICS)
    return tuple((f"{TOPICS[names[i % 2]]} {window}-{i}", names[(i + swapped) % 2]) for i in range(24))


def order(
    window: int,
    parent: Tensors,
    *,
    known: bool,
    family: FamilySpec,
    swapped: bool = False,
    learn: LearnSpec = LEARN,
) -> Order:
    """Return the order of one window."""
    labels = tuple(sorted(TOPICS))
    members = mails(window, swapped=swapped)
    return Order(
        window=window,
        family=family,
        learn=learn,
        chain_seed=1,
        seed=window_seed(1, window),
        parent=parent,
        labels_before=labels if known else (),
        labels=labels,
        arrivals=tuple(text for text, _ in members),
        members=members,
    )


def answers(
    updater: Updater, start: Tensors, family: FamilySpec, windows: int = 3, *, learn: LearnSpec = LEARN
) -> Iterator[Outcome]:
    """Carry out windows one after the other, each posterior the next one's parent."""
    parent = start
    for window in range(windows):
        outcome = updater.carry_out(order(window, parent, known=window > 0, family=family, learn=learn))
        parent = outcome.tensors
        yield outcome
