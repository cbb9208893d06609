"""Ways through the mails: families of belief, sequential LoRA, LoRA with replay, joint training."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from priorflow.config import Settings
from priorflow.demo_baselines import Memory, Windows, remembered, sequential
from stream.plan import Member, labels_after, window_seed
from trainers.parts import Rules
from trainers.window import Order, Updater

REPLAYED: Final = 500
SAMPLE: Final = 200  # mails of each window that show what is remembered
BLOB, LOW_RANK, BAG = "blob", "gaussian_lowrank", "bag of words"
OURS: Final = "blob and panel"
LORA, REPLAY, JOINT = "sequential LoRA", "LoRA + replay", "joint training"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way through the windows: a family and how it is fed."""

    name: str
    family: str
    options: Mapping[str, Any]
    learn: Mapping[str, Any]
    through: Callable[[Updater, Rules, Windows], Memory]


def methods(settings: Settings) -> tuple[Method, ...]:
    """Return the adapted methods: families of belief as the demo sets them, and points."""
    ours = settings.family
    said = {name: ours.options() if ours.name == name else {} for name in (BLOB, LOW_RANK)}
    frozen = {**said[BLOB], "b": "frozen"}
    alone: dict[str, Any] = {"panel": False}
    point: dict[str, Any] = {"draws": 0, "beta": 1.0, "panel": False}
    return (
        Method(name=OURS, family=BLOB, options=said[BLOB], learn={"panel": True}, through=plain),
        Method(name=BLOB, family=BLOB, options=said[BLOB], learn=alone, through=plain),
        Method(name=LORA, family="point", options={}, learn=point, through=plain),
        Method(name=LOW_RANK, family=LOW_RANK, options=said[LOW_RANK], learn=alone, through=plain),
        Method(name=REPLAY, family="point", options={}, learn=point, through=replayed),
        Method(name=JOINT, family="point", options={}, learn=point, through=joint),
        Method(name=f"{BLOB}, B frozen", family=BLOB, options=frozen, learn=alone, through=plain),
    )


def plain(updater: Updater, rules: Rules, windows: Windows) -> Memory:
    """Learn window after window."""
    return sequential(updater, rules, windows, _tick, sample=SAMPLE)


def replayed(updater: Updater, rules: Rules, windows: Windows) -> Memory:
    """Learn each window beside a reservoir of earlier mails, which are not counted as new.

    Points are charged no KL, so the count of new examples enters nothing; replay costs steps.
    """
    size = REPLAYED * len(windows[min(windows)]) // rules.intake.window.size  # fewer where --quick cuts
    held = reservoirs(windows, size=size, seed=rules.chain.seed)
    return sequential(updater, rules, windows, _tick, sample=SAMPLE, rehearsed=held.__getitem__)


def reservoirs(windows: Windows, *, size: int, seed: int) -> dict[int, tuple[Member, ...]]:
    """Return a uniform sample of everything before each window (algorithm R)."""
    rng, held, seen, out = random.Random(seed), list[Member](), 0, {}
    for index in sorted(windows):
        out[index] = tuple(held)
        for member in windows[index]:
            seen += 1
            if len(held) < size:
                held.append(member)
            elif (place := rng.randrange(seen)) < size:
                held[place] = member
    return out


def joint(updater: Updater, rules: Rules, windows: Windows) -> Memory:
    """Learn all windows at once from the base: the ceiling. It foretells nothing."""
    everything = [m for w in sorted(windows) for m in windows[w]]
    labels = labels_after((), everything)
    asked = Order(
        window=0,
        family=rules.family,
        learn=rules.learn,
        chain_seed=rules.chain.seed,
        seed=window_seed(rules.chain.seed, 0),
        parent={},
        labels_before=(),
        labels=labels,
        arrivals=(),
        members=tuple((m.text, m.label) for m in everything),
    )
    outcome = updater.carry_out(asked)
    asked = replace(asked, parent=outcome.tensors, labels_before=labels, members=())
    row = remembered(updater, asked, [windows[w] for w in sorted(windows)], SAMPLE)
    return Memory(predictions=(), matrix=(row,), kl=(outcome.kl,), seconds=(outcome.seconds,))


def _tick() -> None:
    print(".", end="", file=sys.stderr, flush=True)
