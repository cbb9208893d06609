"""IVON reaches the posterior that is known in closed form, hands it on, and a slow prior is an average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import pytest
import torch
from torch import Tensor

from benchmarks.study.chain import Frozen
from benchmarks.study.ivon import Gaussian, Ivon, base, grown, learned, next_prior, still
from benchmarks.study.streams import Example
from posterior.family import Draw, Slot
from tests.app.encoders import small_encoder
from tests.trainers.regression import Regression, windows
from trainers.activations import Activations
from trainers.model import AdaptedModel, ModelSpec
from trainers.update import Likelihood, Schedule

D, N = 4, 48
PRIOR: Final = base([Slot("head", (1, D), "head")])
# Thorough: what is asked for is the optimum.
THOROUGH: Final = Schedule(epochs=600, batch=N, lr=0.2)


def after(prior: Gaussian, window: Likelihood, *, seed: int = 1) -> Gaussian:
    return learned(prior, window, examples=N, schedule=THOROUGH, seed=seed, beside={}, beta_2=0.995)


def exact(found: Sequence[Regression]) -> Gaussian:
    """Return the mean-field optimum: the exact mean, and the diagonal of the exact precision."""
    x, y = torch.cat([w.x for w in found]).double(), torch.cat([w.y for w in found]).double()
    precision = x.T @ x + torch.diag(PRIOR.precision["head"][0].double())
    mean = torch.linalg.solve(precision, x.T @ y)
    return Gaussian({"head": mean[None].float()}, {"head": precision.diagonal()[None].float()})


def require_close(found: Gaussian, wanted: Gaussian, *, slack: float) -> None:
    """Compare means in posterior deviations; curvature is an average of noise, which windows add up."""
    deviation = wanted.precision["head"].rsqrt()
    assert float(((found.mean["head"] - wanted.mean["head"]) / deviation).abs().max()) < 0.15 * slack
    assert float((found.precision["head"] / wanted.precision["head"]).log().abs().max()) < 0.12 * slack


def test_on_linear_gaussian_data_it_finds_the_diagonal_posterior() -> None:
    (window,) = windows(1, examples=N, features=D, orthogonal=False, seed=1)
    require_close(after(PRIOR, window), exact([window]), slack=1)


def test_window_after_window_is_all_windows_at_once() -> None:
    first, second = windows(2, examples=N, features=D, orthogonal=True, seed=2)
    prior = next_prior(PRIOR, after(PRIOR, first), rate=1.0)
    require_close(after(prior, second, seed=2), exact([first, second]), slack=2)


@final
@dataclass(frozen=True)
class Silent:
    """Texts that say nothing."""

    outputs: int = 1

    def nll(self, positions: Sequence[int], draw: Draw) -> Tensor:
        return 0.0 * draw["head"].sum() * len(positions)

    def bend(self, positions: Sequence[int], draw: Draw, signs: Tensor) -> Tensor:
        raise NotImplementedError


def test_texts_that_say_nothing_leave_the_prior_as_it_is() -> None:
    prior = Gaussian({"head": torch.arange(4.0)[None]}, {"head": torch.arange(1.0, 5.0)[None]})
    found = learned(prior, Silent(), examples=8, schedule=Schedule(epochs=2, batch=4), seed=1, beside={})
    for side in ("mean", "precision"):
        assert torch.equal(getattr(found, side)["head"], getattr(prior, side)["head"])


def test_however_noisy_the_curvature_precision_stays_positive() -> None:
    (window,) = windows(1, examples=N, features=D, orthogonal=False, seed=3)
    loud = Regression(100 * window.x, window.y)
    found = learned(
        PRIOR, loud, examples=N, schedule=Schedule(epochs=4, batch=2), seed=1, beside={}, beta_2=0.0
    )
    assert float(found.precision["head"].min()) > 0


def test_a_slow_prior_takes_in_so_much_of_a_window_s_evidence() -> None:
    prior, evidence, pull = PRIOR, torch.full((1, D), 60.0), torch.arange(4.0)[None]
    precision = prior.precision["head"] + evidence
    natural = prior.precision["head"] * prior.mean["head"] + pull
    found = next_prior(prior, Gaussian({"head": natural / precision}, {"head": precision}), rate=0.25)
    torch.testing.assert_close(found.precision["head"], prior.precision["head"] + 0.25 * evidence)
    torch.testing.assert_close(found.precision["head"] * found.mean["head"], 0.25 * pull)


def test_new_class_rows_are_the_base_s_and_old_ones_stay() -> None:
    known = Gaussian({"head": torch.ones(1, D)}, {"head": torch.full((1, D), 7.0)})
    larger = grown(known, base([Slot("head", (2, D), "head")]))
    assert torch.equal(larger.mean["head"], torch.tensor([[1.0] * D, [0.0] * D]))
    assert torch.equal(larger.precision["head"], torch.tensor([[7.0] * D, [100.0] * D]))


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_two_topics_are_told_apart_and_what_is_carried_is_counted(rate: float) -> None:
    torch.set_num_threads(1)
    model = AdaptedModel(ModelSpec(encoder=small_encoder(), max_tokens=16))
    frozen = Frozen(model, Activations(model))
    learner = Ivon(frozen, Schedule(epochs=6, batch=8, lr=0.2), draws=3, seed=1, rate=rate)
    assert learner.foretell(["kernel"]) == [None]
    texts = [("kernel patch boots", "linux"), ("cash offer now", "money")]
    for start in (0, 20):
        learner.learn([Example(f"{text} {start + i}", label, 0) for i in range(20) for text, label in texts])
    for forecasts in (learner.foretell([t for t, _ in texts]), learner.recall([t for t, _ in texts])):
        for forecast, (_, label) in zip(forecasts, texts, strict=True):
            assert forecast is not None
            assert sum(forecast.values()) == pytest.approx(1)
            assert forecast[label] > 0.5
    random = sum(s.shape[0] * s.shape[1] for s in model.slots(2) if s.role != "up")
    assert learner.carried() == 2 * 4 * random * (1 if rate == 1.0 else 2)


def test_b_is_of_a_seed_and_its_columns_are_directions() -> None:
    slots = [Slot("x.A", (2, 9), "down"), Slot("x.B", (16, 2), "up")]
    (found,) = still(slots, seed=1).values()
    assert found.shape == (16, 2)
    assert torch.equal(found, still(slots, seed=1)["x.B"])
    assert 0.5 < float(found.abs().max()) <= 2**-0.5
