"""Orders: predicted before learned, the same bits in process and under Ray."""

from __future__ import annotations

import os
import signal
import statistics
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posterior.family import NotFinite, Tensors
from posterior.sight import OtherPanel
from posterior.tensors import to_bytes
from tests.trainers.conftest import SPEC
from tests.trainers.orders import PANELLED, answers, order
from trainers.evaluate import tempered_cost
from trainers.keeping import kept_share
from trainers.model import AdaptedModel
from trainers.ray_update import RaySpec, RayUpdater
from trainers.window import FamilySpec, Local, Outcome, root

BLOB = FamilySpec(name="blob", options={"sd_head": 0.1})


@pytest.fixture(scope="module")
def start(model: AdaptedModel) -> Tensors:
    return root(model, BLOB, chain_seed=1)


@pytest.fixture(scope="module")
def local(model: AdaptedModel, start: Tensors) -> list[Outcome]:
    return list(answers(Local(model), start, BLOB))


def bits(outcome: Outcome) -> tuple[object, ...]:
    taught = outcome.lesson
    assert taught is not None
    lesson = taught.by_site, taught.evidence, taught.costs.tolist()
    return to_bytes(outcome.tensors), outcome.forecasts, outcome.beta, outcome.kl, lesson


def test_nothing_is_foretold_while_no_class_is_known(local: list[Outcome]) -> None:
    assert local[0].forecasts == ()
    assert len(local[1].forecasts) == 24
    assert all(abs(sum(row) - 1) < 1e-9 for row in local[1].forecasts)


def test_what_was_learned_is_foretold(local: list[Outcome]) -> None:
    right = [row[i % 2] > 0.5 for i, row in enumerate(local[2].forecasts)]
    assert sum(right) >= 20


def test_forecasts_do_not_know_the_window_they_precede(model: AdaptedModel, local: list[Outcome]) -> None:
    parent = local[0].tensors
    told = Local(model).carry_out(order(1, parent, known=True, family=BLOB, swapped=True))
    assert told.forecasts == local[1].forecasts
    assert to_bytes(told.tensors) != to_bytes(local[1].tensors)


def test_swapped_labels_lower_beta(model: AdaptedModel, local: list[Outcome]) -> None:
    swapped = Local(model).carry_out(order(3, local[2].tensors, known=True, family=BLOB, swapped=True))
    kept = Local(model).carry_out(order(3, local[2].tensors, known=True, family=BLOB))
    assert kept.beta >= 0.99
    assert swapped.beta <= 0.5


@given(
    data=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=40),
    times=st.lists(st.integers(1, 4), min_size=4, max_size=4),
)
def test_how_often_a_class_comes_does_not_decide_what_a_beta_costs(
    data: list[tuple[int, float, float]], times: list[int]
) -> None:
    few = kept_share(*_costs(data))[0]
    many = kept_share(*_costs([one for one in data for _ in range(times[one[0]])]))[0]
    assert many == pytest.approx(few)


@given(gains=st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_less_is_kept_only_where_that_wins_by_more_than_chance(gains: list[float]) -> None:
    _, beta = kept_share(*_costs([(0, 9.0, 9.0 - gain) for gain in gains]))
    error = 2 * statistics.pstdev(gains) / len(gains) ** 0.5
    if abs(statistics.fmean(gains) - error) > 1e-9:
        assert beta == (0.5 if statistics.fmean(gains) > error else 1.0)


def test_being_too_sure_is_no_reason_to_forget() -> None:
    """Right in eight of ten and far too sure: as it stands worse than knowing nothing, tempered better."""
    truth = torch.tensor([0] * 10)
    right, wrong = torch.tensor([0.0, -9.0, -9.0]), torch.tensor([-9.0, 0.0, -9.0])
    sure = torch.log_softmax(torch.stack([right] * 8 + [wrong] * 2), dim=-1)
    ignorant = torch.full((10, 3), 1 / 3).log()
    assert float(-sure[:, 0].mean()) > float(-ignorant[:, 0].mean())
    assert float(tempered_cost(sure, truth).mean()) < float(tempered_cost(ignorant, truth).mean())


def test_being_wrong_is_a_reason_to_forget_at_any_temperature() -> None:
    truth = torch.tensor([0] * 10)
    swapped = torch.log_softmax(torch.tensor([[-6.0, 0.0]] * 10), dim=-1)
    ignorant = torch.full((10, 2), 0.5).log()
    assert float(tempered_cost(swapped, truth).mean()) > float(tempered_cost(ignorant, truth).mean()) + 1


def _costs(data: list[tuple[int, float, float]]) -> tuple[dict[float, torch.Tensor], torch.Tensor]:
    """Return what beta 1 and beta .5 cost for (class, cost, cost), and the classes."""
    table = torch.tensor([one[1:] for one in data], dtype=torch.float64)
    return {1.0: table[:, 0], 0.5: table[:, 1]}, torch.tensor([one[0] for one in data])


def test_b_is_frozen_by_classes_learned_not_by_names_in_the_map(model: AdaptedModel) -> None:
    """A branch keeps the head's label map beside tensors of a champion that knew fewer classes."""
    family = FamilySpec(name="blob", options={"b": "frozen"})
    made = order(0, root(model, family, chain_seed=1), known=False, family=family)
    (one,) = {label for _, label in made.members[:1]}
    alone = replace(made, members=tuple(m for m in made.members if m[1] == one))
    assert len(alone.labels) == 2
    assert Local(model).carry_out(alone).tensors["flags/b_frozen"] == 0
    assert Local(model).carry_out(made).tensors["flags/b_frozen"] == 1


def test_an_order_without_members_changes_nothing(model: AdaptedModel, local: list[Outcome]) -> None:
    asked = order(1, local[0].tensors, known=True, family=BLOB)
    empty = type(asked)(**{f: getattr(asked, f) for f in asked.__slots__} | {"members": ()})
    outcome = Local(model).carry_out(empty)
    assert outcome.tensors is empty.parent
    assert outcome.forecasts == local[1].forecasts


def test_a_cold_cache_gives_the_same_bits(start: Tensors, local: list[Outcome]) -> None:
    again = list(answers(Local(AdaptedModel(SPEC)), start, BLOB))
    assert [bits(o) for o in again] == [bits(o) for o in local]


def test_a_belief_that_is_no_number_is_an_error(model: AdaptedModel, local: list[Outcome]) -> None:
    broken = dict(local[0].tensors)
    broken["mean/head"] = broken["mean/head"] * float("nan")
    with pytest.raises(NotFinite, match="window 1"):
        Local(model).carry_out(order(1, broken, known=True, family=BLOB))


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayUpdater]:
    """Two Ray workers; starting them costs more than all that is asked of them."""
    storage = tmp_path_factory.mktemp("ray")
    updater = RayUpdater(SPEC, RaySpec(workers=2, threads=1, storage=storage))
    try:
        yield updater
    finally:
        updater.close()


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_ray_hands_the_error_on_and_goes_on(workers: RayUpdater, start: Tensors) -> None:
    good = workers.carry_out(order(0, start, known=False, family=BLOB))
    broken = {k: v * float("nan") if v.is_floating_point() else v for k, v in good.tensors.items()}
    with pytest.raises(NotFinite, match="window 1"):
        workers.carry_out(order(1, broken, known=True, family=BLOB))
    with pytest.raises(OtherPanel, match="replay --into"):  # to a worker it would be a reason to start again
        workers.carry_out(order(1, {"generative/count": torch.zeros(1)}, known=True, family=BLOB))
    again = workers.carry_out(order(0, start, known=False, family=BLOB))
    assert to_bytes(again.tensors) == to_bytes(good.tensors)
    assert torch.get_num_threads() == 1


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_ray_workers_give_the_bits_of_one_process(
    workers: RayUpdater, model: AdaptedModel, start: Tensors
) -> None:
    """A panel's too, and with a worker killed in between: Ray starts others, given the same order.

    A single worker's bits are those of `tests.app.test_faults_workers`.
    """
    expected = list(answers(Local(model, world=2), start, BLOB, learn=PANELLED))
    outcomes = answers(workers, start, BLOB, learn=PANELLED)
    first = next(outcomes)
    threading.Thread(target=os.kill, args=(workers.worker_pid(), signal.SIGKILL)).start()
    assert [bits(o) for o in (first, *outcomes)] == [bits(o) for o in expected]
