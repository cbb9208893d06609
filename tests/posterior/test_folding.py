"""Rows of one name are one class: its probability is their sum, and all else stands."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior.folding import first_rows, folded, once

maps = st.lists(st.sampled_from("abcd"), min_size=1, max_size=6)


def said_of(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(4, rows, generator=generator).double(), dim=-1)


@given(labels=maps, seed=st.integers(0, 50))
def test_a_class_has_what_its_rows_have_and_every_other_its_bits(labels: list[str], seed: int) -> None:
    log_p = said_of(len(labels), seed)
    classes = once(labels)
    found = folded(log_p, labels)
    assert found.shape == (4, len(classes))
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(4).double(), atol=1e-12, rtol=0)
    for column, name in enumerate(classes):
        own = [row for row, label in enumerate(labels) if label == name]
        torch.testing.assert_close(found[:, column].exp(), log_p[:, own].exp().sum(dim=1))
        if len(own) == 1:
            assert torch.equal(found[:, column], log_p[:, own[0]])


@given(labels=maps, seed=st.integers(0, 50))
def test_it_is_one_whether_two_at_a_time_or_all_at_once(labels: list[str], seed: int) -> None:
    log_p = said_of(len(labels), seed)
    merged = {"a": "b", "b": "b", "c": "b"}
    at_once = [merged.get(label, label) for label in labels]
    step = ["b" if label == "a" else label for label in labels]
    after = ["b" if label == "c" else label for label in once(step)]
    torch.testing.assert_close(folded(folded(log_p, step), after), folded(log_p, at_once))


def test_without_two_rows_of_one_class_nothing_is_computed() -> None:
    log_p = said_of(3, 0)
    assert folded(log_p, "abc") is log_p
    assert folded(log_p, ()) is log_p


@given(labels=maps)
def test_a_class_is_known_by_its_first_row(labels: list[str]) -> None:
    firsts = first_rows(labels)
    assert [labels[row] for row in firsts] == labels
    assert [labels.index(label) for label in labels] == list(firsts)
