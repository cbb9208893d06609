"""What an exported adapter leaves out, in words: for who exports it, and for who finds the folder later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from posterior.experts import ROWS
from posterior.panel import Panel
from trainers.model import PEFT_WEIGHTS
from trainers.peft_form import CONFIG, FACTS, Origin
from trainers.peft_form import ROWS as HEAD

CARD: Final = "README.md"
MARK: Final = "---\n# Written by `priorflow export`; the next export of this folder replaces it.\n"


@final
@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that answers are made of and the folder does not hold; `what` names it for a tool."""

    what: str
    text: str


def rows_heard(panel: Panel) -> float:
    """Return the share of a forecast's weight that goes to experts who hear class rows and nothing else."""
    return float(panel.pool["classes"][: len(ROWS)].sum())  # they are the first


def left_out(origin: Origin, *, heard: float | None, drawn: bool) -> tuple[LeftOut, ...]:
    """Return what is not in the folder; `heard` is None without a panel, `drawn` whether draws differ."""
    found = [] if heard is None else [LeftOut("panel", _panel(heard))]
    found += [LeftOut("draws", _draws(origin))] if drawn and origin.draws else []
    found += [LeftOut("threshold", _THRESHOLD)] if origin.labels else []
    return tuple(found)


_THRESHOLD: Final = (
    "the threshold below which `priorflow serve` withholds an answer: it was chosen for other confidences"
)


def _panel(heard: float) -> str:
    return (
        f"the snapshot's panel: class rows alone have {heard:.0%} of the weight in its forecasts, and the "
        "rest asks heads on the frozen model that no adapter holds. Expect the rows by themselves to be less "
        "accurate, above all on classes that later windows did not hold, surer than they should be, and "
        "silent about new classes; measure them on labelled texts of your own first"
    )


def _draws(origin: Origin) -> str:
    which = "the mean" if origin.draw is None else f"draw {origin.draw}"
    return (
        f"doubt: this is {which}, one set of weights. A forecast of the class rows is the mean of p(class) "
        f"over draws 0 to {origin.draws - 1}, each of them an export of its own (--draw)"
    )


def card(origin: Origin, missing: Sequence[LeftOut]) -> bytes:
    """Return the folder's README."""
    lines = [
        f"{MARK}library_name: peft",
        "---",
        f"# {origin.name}",
        "",
        f"Weights of snapshot `{origin.snapshot}`, window {origin.window} of chain `{origin.chain}`.",
        "",
        "## Not in this folder",
        "",
        *(f"- {one.text[0].upper()}{one.text[1:]}." for one in missing),
        "",
        "## In it",
        "",
        f"- `{CONFIG}`, `{PEFT_WEIGHTS}`: the adapter, for `peft.PeftModel.from_pretrained`",
        *([f"- `{HEAD}`: the class rows, which are no classifier of transformers"] if origin.labels else []),
        f"- `{FACTS}`: whose weights these are, what texts go through, and the order of the labels",
        "",
    ]
    return "\n".join(lines).encode()
