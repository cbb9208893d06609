"""What is BH-PEFT's own: every factor random, and what holding the way up means."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posterior.bhpeft import BhPeft
from posterior.families import PARTS
from posterior.family import ONE_TASK, tensors_of
from posterior.gaussian import Diagonal
from tests.posterior.cases import CASES, learned, moved, names, normals, slots

UPS = ["ffn.adapter.B", "q.B", "v.B"]
ANCHORED, FROZEN = CASES["bhpeft, ups anchored"], CASES["bhpeft, ups frozen"]


def base(family: BhPeft, *, centres: dict[str, Tensor] | None = None) -> Diagonal:
    return family.base(slots(2), seed=1, centres=centres or {})


def test_all_three_parts_are_what_it_is_about() -> None:
    assert PARTS["bhpeft"] == ("lora", "adapter", "prefix")


def test_every_slot_of_every_part_is_random_and_moves() -> None:
    start = base(BhPeft())
    state = learned(CASES["bhpeft"], start, seed=2)
    assert sorted(state.mean) == sorted(names(slots(2)))
    assert sorted(BhPeft().noise(state)) == sorted(names(slots(2)))
    for name in state.mean:
        assert bool((state.mean[name] != start.mean[name]).all()), name
        assert bool((state.log_sd[name] != start.log_sd[name]).all()), name


def test_each_role_has_a_deviation_of_its_own() -> None:
    sds = {slot.role: 0.01 * (i + 1) for i, slot in enumerate(slots(2)) if slot.name[0] != "v"}
    state = base(BhPeft(**{f"sd_{role}": sd for role, sd in sds.items()}))  # type: ignore[arg-type]
    for slot in slots(2):
        assert bool((state.log_sd[slot.name] == math.log(sds[slot.role])).all())


def test_the_charge_is_a_sum_over_weights_of_all_parts() -> None:
    """Not the paper's mean over weights: one deviation each is half a nat each."""
    family = BhPeft()
    prior = base(family)
    at = {k: torch.full_like(v, float(k.startswith("mean/"))) for k, v in family.origin(prior).items()}
    weights = sum(math.prod(slot.shape) for slot in slots(2))
    charge = float(family.kl(family.place(prior, at, shape=prior), prior))
    assert math.isclose(charge, weights / 2, rel_tol=1e-6)


def test_an_anchored_way_up_never_firms_and_pays_for_its_way() -> None:
    family = BhPeft(up="anchored")
    state = base(family)
    for seed in range(3):
        state = learned(ANCHORED, state, seed=seed)
    for name in UPS:
        assert bool((state.log_sd[name] == math.log(family.sd_up)).all())
        assert bool((state.mean[name] != 0).all())
    before, after = base(family), moved(ANCHORED, base(family), seed=5)
    alone = Diagonal(
        mean=dict(before.mean) | {k: after.mean[k] for k in UPS},
        log_sd=before.log_sd,
        point=before.point,
        flags=before.flags,
    )
    way = sum(0.5 * float((after.mean[k] / 0.02).double().square().sum()) for k in UPS)
    assert math.isclose(float(family.kl(alone, before)), way, rel_tol=1e-6)


def test_a_frozen_way_up_is_the_same_point_for_ever() -> None:
    family = BhPeft(up="frozen")
    start = base(family)
    state = learned(FROZEN, start, seed=2)
    assert sorted(start.point) == UPS
    assert all(torch.equal(state.point[k], start.point[k]) for k in UPS)
    assert all(torch.linalg.matrix_rank(start.point[k]) == start.point[k].shape[1] for k in UPS)
    assert not set(UPS) & set(family.noise(state))
    assert not any(k.endswith(".B") for k in family.origin(state))
    assert not torch.equal(start.point["v.B"], start.point["q.B"])


def test_at_the_mean_of_the_base_no_adapter_changes_anything() -> None:
    for family in (BhPeft(), BhPeft(up="anchored"), BhPeft(up="frozen")):
        draw = family.mean(family.open(base(family), [ONE_TASK]), [ONE_TASK])
        for a, b in (("q.A", "q.B"), ("v.A", "v.B"), ("ffn.adapter.A", "ffn.adapter.B")):
            assert not bool((draw[b] @ draw[a]).any())
            assert bool(draw[a].any()) or bool(draw[b].any())  # else nothing would have a slope
        assert not bool(draw["self.prefix.V"].any())


def test_the_paper_s_prior_is_an_option() -> None:
    roles = {f"sd_{slot.role}": 0.1 for slot in slots(2)}
    state = base(BhPeft(centre="zero", **roles))  # type: ignore[arg-type]
    assert not any(bool(v.any()) for v in state.mean.values())
    assert all(bool((v == math.log(0.1)).all()) for v in state.log_sd.values())


def test_a_warm_start_is_kept_in_every_form() -> None:
    warm = {k: torch.randn(s.shape) for s in slots(2) if (k := s.name) in {"q.A", "q.B"}}
    for family in (BhPeft(), BhPeft(centre="zero"), BhPeft(up="anchored"), BhPeft(up="frozen")):
        draw = family.mean(base(family, centres=warm), [ONE_TASK])
        assert all(torch.equal(draw[k][0], v) for k, v in warm.items())


def test_draws_reach_the_tensors_that_are_handed_on() -> None:
    """What is saved is what is drawn from: a state restored draws the same."""
    family = BhPeft(up="frozen")
    state = learned(FROZEN, base(family), seed=3)
    noise = normals(family.noise(state), 2, seed=1)
    one, two = (family.sample(s, noise, [ONE_TASK] * 2) for s in (state, family.restore(tensors_of(state))))
    assert all(torch.equal(one[k], two[k]) for k in one)
