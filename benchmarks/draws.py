"""What the number of weight draws changes in an answer: as served, and cheaper, against 64 and 512 draws.

    .venv/bin/python benchmarks/draws.py [--quick] [--json]

A chain of two windows of the demo's mails is learned with the default settings; one that an earlier call
left in `.priorflow/bench-draws` is asked again. Its head is asked about mails that were not in its stream,
one by one as it is served: by the mean weights (`serve.draws: 0`, which is what `export --peft` writes too),
by 3 draws, by the default and by 64, with the panel and by the class rows alone; and by 512, about fewer
mails, for they take seconds each. References draw by a seed of their own: the first ten of the same 64 would
flatter the ten.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

import torch

from benchmarks.intervals import Estimate
from benchmarks.result import ROOT, Result, Row, arguments, progress, publish
from benchmarks.serving import learned, stream
from benchmarks.streams import ASSETS, fresh_folder
from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from connectors.mails import fetch_mails, load_mails
from posterior import panel
from posterior.snapshot import Snapshot
from posterior.tensors import from_bytes, to_bytes
from priorflow.config import Settings, load
from priorflow.learning import model_spec
from priorflow.serving.comparing import difference
from priorflow.serving.version import answer_spec, rule_of
from trainers.abstention import Abstention
from trainers.activations import Activations
from trainers.answer import Answer, answerer_of
from trainers.model import AdaptedModel

NAME: Final = "draws"
MAILS, QUICK_MAILS = 200, 10
REFERENCE, MANY = 64, 512
OF_MANY, QUICK_OF_MANY = 50, 2  # mails that 512 draws are asked about
OTHER_SEED: Final = 7_919  # apart from the chain's
# Set before anything was measured: a form that keeps to these answers as its reference does, for most uses.
AGREE, DELTA_P, KL = 0.97, 0.02, 0.01
_BLOCK: Final = 10  # mails asked of each form in turn, so that what slows the machine slows all


@dataclass(frozen=True)
class Form:
    """A way to be asked: so many draws, with the panel or by the class rows alone."""

    name: str
    draws: int
    panel: bool
    seed: int


@dataclass(frozen=True)
class Told:
    """What a form said of each mail, and the seconds each took."""

    answers: Sequence[Answer]
    seconds: Sequence[float]


def forms(settings: Settings) -> list[Form]:
    """Return all forms, references last."""
    seed, served = settings.chain.seed, settings.learn.draws
    return [
        Form(f"{_words(draws)}, {'panel' if beside else 'class rows alone'}", draws, beside, at)
        for beside in (True, False)
        for draws, at in [
            *((n, seed) for n in (0, 3, served)),
            *((n, seed + OTHER_SEED) for n in (REFERENCE, *([MANY] if beside else []))),
        ]
    ]


def ask(
    settings: Settings, head: Snapshot, posterior: bytes, texts: Sequence[str], of_many: int
) -> dict[Form, Told]:
    """Ask every form about every text, and the one of most draws about the first `of_many`."""
    torch.set_num_threads(settings.learn.threads)
    model = AdaptedModel(model_spec(settings))
    activations, spec = Activations(model), answer_spec(settings)
    asked = {
        form: answerer_of(
            model,
            activations,
            replace(spec, draws=form.draws, chain_seed=form.seed),
            posterior if form.panel else rows_alone(posterior),
            labels=head.labels,
            window=head.index,
        )
        for form in forms(settings)
    }
    answers: dict[Form, list[Answer]] = {form: [] for form in asked}
    seconds: dict[Form, list[float]] = {form: [] for form in asked}
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        activations.sight(block)  # the frozen layers cost every form the same, once
        for form, answerer in asked.items():
            for text in block[: max(0, of_many - start)] if form.draws == MANY else block:
                begun = time.perf_counter()
                answers[form].append(answerer.answer(text))
                seconds[form].append(time.perf_counter() - begun)
        progress(f"{start + len(block)} of {len(texts)} mails")
    return {form: Told(answers[form], seconds[form]) for form in asked}


def unread(count: int) -> list[str]:
    """Return so many mails, of all queues, that were not in the chain's stream."""
    read = {mail.text.partition(") ")[2] for mail in stream()}
    fresh = [mail.text for mail in load_mails(fetch_mails(ASSETS)) if mail.text not in read]
    return random.Random(9).sample(fresh, count)


def at_hand() -> Settings | None:
    """Return the settings of the chain that an earlier call learned whole; None if there is none."""
    said = ROOT / ".priorflow" / f"bench-{NAME}" / "said.json"
    return load(None, overrides=json.loads(said.read_text(encoding="utf-8"))) if said.is_file() else None


def rows_alone(posterior: bytes) -> bytes:
    """Return a posterior without its panel."""
    _, rest = panel.restore(from_bytes(posterior))
    return to_bytes(rest)


def compared(form: Told, reference: Told, rule: Abstention | None) -> dict[str, float]:
    """Return how a form differs from its reference, over the mails of both; KL of it from the reference."""
    pairs = list(zip(reference.answers, form.answers, strict=False))
    apart = [difference(one, other) for one, other in pairs]
    alike = [
        rule is None or rule.abstains(one.confidence) == rule.abstains(other.confidence)
        for one, other in pairs
    ]
    n = len(apart)
    return {
        "mean |delta p|": sum(a.delta_p for a in apart) / n,
        "max |delta p|": max(a.delta_p for a in apart),
        "mean KL, nats": sum(a.kl for a in apart) / n,
        "labels agree": sum(a.agrees for a in apart) / n,
        "abstentions agree": sum(alike) / n,
    }


def table(told: Mapping[Form, Told], rule: Abstention | None) -> Iterator[dict[str, Any]]:
    """Yield every form against both references, and those against each other."""
    for form, said in told.items():
        ordered = sorted(said.seconds)
        row: dict[str, Any] = {"form": form.name, "median seconds": _short(ordered[len(ordered) // 2])}
        for other, reference in told.items():
            if other.panel == form.panel and other.draws >= REFERENCE and other.draws > form.draws:
                found = compared(said, reference, rule)
                row[f"against {other.draws} draws, {len(reference.answers)} mails"] = {
                    what: _short(value) for what, value in found.items()
                }
        yield row


def claims(settings: Settings, told: Mapping[Form, Told], rule: Abstention | None) -> Iterator[Row]:
    """Yield what is claimed: answers as served are those of 64 draws."""
    (served,) = (f for f in told if f.panel and f.draws == settings.learn.draws)
    (reference,) = (f for f in told if f.panel and f.draws == REFERENCE)
    found, name = (
        compared(told[served], told[reference], rule),
        f"{served.draws} draws against {reference.draws}",
    )
    n = len(told[served].answers)
    agree = found["labels agree"]
    yield Row(
        what=f"{name}: labels that agree",
        bound="at least",
        target=AGREE,
        measured=_exactly(agree),
        unit="of all",
        runs=n,
    )
    for what, target, unit in (("mean |delta p|", DELTA_P, ""), ("mean KL, nats", KL, "nats")):
        yield Row(
            what=f"{name}: {what}",
            bound="at most",
            target=target,
            measured=_exactly(found[what]),
            unit=unit,
            runs=n,
        )


def main() -> None:
    """Learn, ask, compare and publish."""
    asked = arguments(__doc__)
    progress("a chain of two windows, learned or at hand")
    settings = at_hand() or learned(fresh_folder(NAME))
    blobs = open_blobs(settings.blobs_url)
    with closing(open_ledger(settings.ledger_url, blobs)) as ledger:
        rows = ledger.history(settings.chain.name)
    history = [row for row in rows if row.kind == "learned"]
    head = history[-1]
    rule = rule_of(settings, rows, head)
    mails, of_many = (QUICK_MAILS, QUICK_OF_MANY) if asked.quick else (MAILS, OF_MANY)
    texts = unread(mails)
    told = ask(settings, head, blobs.get(head.posterior), texts, of_many)
    how = {
        "snapshot": f"{len(history)} windows of mails, {len(head.labels)} classes, default settings",
        "mails": f"{len(texts)}, none of which was in the chain's stream",
        "|delta p|": "of the reference's label; KL(reference || form) over known classes and a new one",
        "abstention": None if rule is None else f"from confidence {rule.at} on, for risk {rule.risk}",
        "seconds": "of an answer without the frozen layers, which cost every form the same; one thread",
        "load average": round(os.getloadavg()[1], 1),
        "512 draws": f"asked about the first {of_many} mails, with the panel",
        "intervals": "none: the mails are those that were asked, and draws are fixed by the seed",
        "forms": list(table(told, rule)),
    }
    publish(Result(name=NAME, rows=list(claims(settings, told, rule)), how=how), asked)


def _words(draws: int) -> str:
    return f"{draws} draws" if draws else "mean weights"


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


def _short(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
