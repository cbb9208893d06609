"""Bugs in the generative class head: what was seen, and what follows from it."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_MOMENTS = "tests/posterior/test_moments.py::"
_HEAD = "tests/posterior/test_generative.py::"
_IN_TURN = _MOMENTS + "test_windows_in_turn_are_one_window"
_ONE_BY_ONE = _HEAD + "test_foretelling_events_one_by_one_is_the_evidence_of_all"

_SEEN = bugs(
    "moments",
    "posterior/moments.py",
    (
        "means that differ between windows add nothing",
        "a.scatter + b.scatter + between",
        "a.scatter + b.scatter",
        _MOMENTS + "test_means_that_differ_between_windows_add_to_the_scatter",
    ),
    (
        "the newest window's mean stands for all",
        "a.mean + share * gap",
        "torch.where(b.count.unsqueeze(1) > 0, b.mean, a.mean)",
        _IN_TURN,
    ),
    (
        "scatter about the mean of all classes",
        "apart = x - mean[labels]",
        "apart = x - x.mean(dim=0)",
        _MOMENTS + "test_moments_are_counts_means_and_scatter_within_classes",
    ),
)

_BELIEVED = bugs(
    "generative",
    "posterior/generative.py",
    (
        "what was seen counts for no degrees of freedom",
        "freedom=base.freedom + len(psi) - 1 + evidence.count.sum()",
        "freedom=base.freedom + len(psi) - 1",
        _ONE_BY_ONE,
    ),
    (
        "classes far from the base do not widen the covariance",
        "pulled.add_(evidence.scatter)",
        "evidence.scatter.clone()",
        _ONE_BY_ONE,
    ),
    (
        "means are those of the data",
        "mean=base.mean + n / worth * gap",
        "mean=base.mean + gap",
        _ONE_BY_ONE,
    ),
    (
        "a mean is known exactly",
        "wider = 1 + 1 / worth",
        "wider = torch.ones_like(worth)",
        _ONE_BY_ONE,
    ),
    (
        "Student's tails are a degree too light",
        "tails = (nu + 1) / 2 *",
        "tails = (nu + 2) / 2 *",
        _ONE_BY_ONE,
    ),
    (
        "a class unseen lies at 0",
        "return _student(b, b.base.mean.unsqueeze(0),",
        "return _student(b, 0 * b.base.mean.unsqueeze(0),",
        _HEAD + "test_a_class_unseen_is_where_the_base_has_it_and_as_wide_as_the_known",
    ),
)

GENERATIVE: Final[tuple[Mutant, ...]] = (*_SEEN, *_BELIEVED)
