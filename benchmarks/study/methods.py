"""The methods of the study: the same sites, epochs, batches and order, each at a step size of its own.

Step sizes are those that `benchmarks/mails.py` chose with seed 1 on one stream, the mails, before this study;
its result names what each point of a grid gave. The default method got one point alone. Of methods that came
later, `benchmarks.study.tuning` chooses from the same grid on the same stream by the same measure. The other
families take `blob`'s step size, a variant of the default takes the default's, of replay replay's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import mails_methods as mails
from benchmarks.mails import RESULT
from benchmarks.study.chain import Frozen
from benchmarks.study.coreset import Coreset
from benchmarks.study.heads import PROJECTIONS, Counting, Features, FirstWindow, Head, Lda, RanPac
from benchmarks.study.ivon import Ivon
from benchmarks.study.learners import Adapted, NaiveBayes
from benchmarks.study.lora_priors import Adjusted
from benchmarks.study.probes import Laplace, Softmax
from benchmarks.study.retraining import Retrained
from benchmarks.study.walk import Learner
from posterior.families import PARTS
from posterior.family import Part
from priorflow.config import Settings
from priorflow.learning import family_spec, learn_spec
from trainers.model import AdaptedModel
from trainers.window import FamilySpec, LearnSpec

PRIORFLOW, LORA, JOINT = "priorflow", "sequential_lora", "joint"
RETRAINED: Final = (JOINT, "joint_lr_0.1")  # of a stream, the better one is the retraining to beat
EACH_WINDOW: Final = "joint_each_window"  # retraining after each window, at the step size of the second
EWC: Final = "online_ewc"
REPLAY: Final = "lora_replay_500"
ABLATIONS: Final = ("frozen_after_4", "frozen_panel")  # of the default
PROBES: Final = ("probes.py",)
LAST_ADAPTED: Final = 4  # windows after which the ablation's adapters stand still
# What the default carries beside LoRA takes up more than all texts of any stream here: replay of as many
# bytes is replay of everything.
ALL_TEXTS: Final = 10_000
KEPT: Final = 500  # texts of a coreset
OTHER_FAMILIES: Final = ("bora", "bhpeft", "monteclora", "gaussian_lowrank")  # beside the default's
SLOW: Final = 0.5  # of a window's evidence, what enters a slow prior
TUNING: Final = Path(__file__).parent / "results" / "tuning.json"
UNTUNED: Final = 0.1  # the step size of a method that was not tuned yet

AtHand = Callable[[], Frozen]  # made by the first method of a stream that needs it


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way through a stream. `said` is everything that decides it, beside the code, stream and seed.

    `files` name further code that decides it, beside what decides every run: files of this folder.
    """

    name: str
    make: Callable[[AtHand, int], Learner]
    said: Mapping[str, Any]
    together: bool = False
    seeded: bool = True
    files: tuple[str, ...] = ()


def methods(settings: Settings) -> dict[str, Method]:
    """Return the methods by name, the most important first."""
    learn, default, lr = learn_spec(settings), family_spec(settings), step_sizes()
    point, still = FamilySpec(name="point"), _still(maximum_likelihood(learn, lr[mails.LORA]))
    made = (
        adapted(PRIORFLOW, default, stepping(learn, lr[mails.OURS])),
        adapted(LORA, point, maximum_likelihood(learn, lr[mails.LORA])),
        adapted(JOINT, point, maximum_likelihood(learn, lr[mails.JOINT]), together=True),
        adapted(RETRAINED[1], point, maximum_likelihood(learn, 0.1), together=True),
        _each_window(maximum_likelihood(learn, 0.1)),
        adapted("frozen_panel", point, replace(still, panel=True)),
        _counted("frozen_lda", Lda),
        _counted("frozen_softmax", Softmax, files=PROBES),
        _counted("frozen_laplace", Laplace, files=PROBES),
        Method(name="naive_bayes", make=lambda *_: NaiveBayes(), said={}, seeded=False),
        adapted("blob", default, replace(stepping(learn, lr[mails.BLOB]), panel=False)),
        adapted(REPLAY, point, maximum_likelihood(learn, lr[mails.REPLAY]), replayed=mails.REPLAYED),
        adapted(EWC, FamilySpec(name="benchmarks.study.ewc:Ewc"), maximum_likelihood(learn, lr[mails.LORA])),
        Method(
            name="ranpac",
            make=lambda frozen, seed: Counting(frozen_features(frozen()), RanPac(seed)),
            said={"projections": PROJECTIONS},
        ),
        Method(
            name="first_window_lda",
            make=lambda frozen, seed: FirstWindow(
                Adapted(frozen(), point, lambda _: maximum_likelihood(learn, lr[mails.LORA]), seed=seed),
                Lda(),
            ),
            said={"learn": str(maximum_likelihood(learn, lr[mails.LORA]))},
        ),
        adapted("frozen_after_4", default, stepping(learn, lr[mails.OURS]), stops=LAST_ADAPTED),
        adapted("lora_replay_all", point, maximum_likelihood(learn, lr[mails.REPLAY]), replayed=ALL_TEXTS),
        _coreset(default, stepping(learn, lr[mails.OURS])),
        *(_alone(name, replace(stepping(learn, lr[mails.BLOB]), panel=False)) for name in OTHER_FAMILIES),
        *(make(tuned_steps().get(name, UNTUNED)) for name, make in stepped(settings).items()),
    )
    return {method.name: method for method in made}


def stepped(settings: Settings) -> dict[str, Callable[[float], Method]]:
    """Return the methods whose step size `benchmarks.study.tuning` chooses, by name, as functions of it."""
    learn = learn_spec(settings)
    kron = FamilySpec(name="benchmarks.study.ewc_kron:EwcKron")

    def priors(lr: float) -> Method:
        spec = maximum_likelihood(learn, lr)
        return Method(
            name="lora_priors",
            make=lambda frozen, seed: Adjusted(frozen(), spec, seed=seed),
            said={"learn": str(spec)},
            files=("lora_priors.py",),
        )

    return {
        "ewc_kron": lambda lr: adapted(
            "ewc_kron", kron, maximum_likelihood(learn, lr), files=("ewc_kron.py",)
        ),
        "lora_priors": priors,
        "ivon": lambda lr: _ivon("ivon", stepping(learn, lr), rate=1.0),
        "covon": lambda lr: _ivon("covon", stepping(learn, lr), rate=SLOW),
    }


def _each_window(learn: LearnSpec) -> Method:
    point = FamilySpec(name="point")

    def make(frozen: AtHand, seed: int) -> Learner:
        return Retrained(lambda: Adapted(frozen(), point, lambda _: learn, seed=seed))

    return Method(name=EACH_WINDOW, make=make, said={"learn": str(learn)}, files=("retraining.py",))


def _coreset(default: FamilySpec, learn: LearnSpec) -> Method:
    return Method(
        name=f"priorflow_coreset_{KEPT}",
        make=lambda frozen, seed: Coreset(frozen(), default, learn, seed=seed, size=KEPT),
        said={"family": str(default), "learn": str(learn), "kept": KEPT},
        files=("coreset.py",),
    )


def _alone(name: str, learn: LearnSpec) -> Method:
    """Return a family as its name alone gives it, at the parts of the model that it is about."""
    family, parts = FamilySpec(name=name), PARTS.get(name, ("lora",))
    return Method(
        name=name,
        make=lambda frozen, seed: Adapted(_at(frozen(), parts), family, lambda _: learn, seed=seed),
        said={"family": str(family), "learn": str(learn), "parts": parts},
    )


def _at(frozen: Frozen, parts: tuple[Part, ...]) -> Frozen:
    """Return the model with parts to adapt; what enters its first adapted layer is the same for all parts."""
    if frozen.model.spec.parts == parts:
        return frozen
    return replace(frozen, model=AdaptedModel(replace(frozen.model.spec, parts=parts)))


def _ivon(name: str, learn: LearnSpec, *, rate: float) -> Method:
    schedule, draws = learn.schedule, learn.draws
    return Method(
        name=name,
        make=lambda frozen, seed: Ivon(frozen(), schedule, draws=draws, seed=seed, rate=rate),
        said={"schedule": str(schedule), "draws": draws, "rate": rate},
        files=("ivon.py",),
    )


def tuned_steps(told: Path = TUNING) -> dict[str, float]:
    """Return the step sizes that `benchmarks.study.tuning` chose, by method; none where it was not run."""
    held = json.loads(told.read_text(encoding="utf-8"))["methods"] if told.is_file() else {}
    return {name: row["lr"] for name, row in held.items()}


def step_sizes() -> dict[str, float]:
    """Return the step size that each method of the mail benchmark did best with, by its name there."""
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["methods"]
    return {name: round(row["lr"], 6) for name, row in rows.items() if "lr" in row}


def _counted(name: str, head: Callable[[], Head], *, files: tuple[str, ...] = ()) -> Method:
    """Return a head on the frozen encoder's last view, without chance in it."""
    return Method(
        name=name,
        make=lambda frozen, _: Counting(frozen_features(frozen()), head()),
        said={},
        seeded=False,
        files=files,
    )


def frozen_features(frozen: Frozen) -> Features:
    """Return the frozen encoder's last view of texts."""
    return lambda texts: frozen.activations.sight(texts).views[:, -1]


def stepping(learn: LearnSpec, lr: float) -> LearnSpec:
    """Return the same at a step size."""
    return replace(learn, schedule=replace(learn.schedule, lr=lr))


def maximum_likelihood(learn: LearnSpec, lr: float) -> LearnSpec:
    """Return maximum likelihood: nothing to draw, to forget or to hear beside it."""
    return replace(stepping(learn, lr), draws=0, beta=1.0, panel=False)


def _still(learn: LearnSpec) -> LearnSpec:
    """Return the same without a step; nor is anything forgotten that could not be learned again."""
    return replace(learn, beta=1.0, schedule=replace(learn.schedule, epochs=0))


def adapted(
    name: str,
    family: FamilySpec,
    learn: LearnSpec,
    *,
    replayed: int = 0,
    together: bool = False,
    stops: int | None = None,
    files: tuple[str, ...] = (),
) -> Method:
    """Return a family's way through a stream, from window `stops` on without a step."""

    def spec(window: int) -> LearnSpec:
        return learn if stops is None or window < stops else _still(learn)

    return Method(
        name=name,
        make=lambda frozen, seed: Adapted(frozen(), family, spec, seed=seed, replayed=replayed),
        said={"family": str(family), "learn": str(learn), "replayed": replayed, "stops": stops},
        together=together,
        files=files,
    )
