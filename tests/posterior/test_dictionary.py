"""The head of pieces: Polya's urn, exactly additive, and no class pushes another."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posterior import dictionary
from posterior.dictionary import SMOOTHING

V = 6
TEXTS = st.lists(st.tuples(st.sets(st.integers(0, V - 1)), st.integers(0, 3)), max_size=12)


def counts_of(texts: list[tuple[set[int], int]], start: Tensor | None = None) -> Tensor:
    pieces = [torch.tensor(sorted(shown), dtype=torch.int64) for shown, _ in texts]
    labels = torch.tensor([label for _, label in texts], dtype=torch.int64)
    return dictionary.counted(dictionary.nothing(V) if start is None else start, pieces, labels, classes=4)


@given(TEXTS, TEXTS)
def test_windows_in_any_order_are_one_evidence_bit_for_bit(
    one: list[tuple[set[int], int]], two: list[tuple[set[int], int]]
) -> None:
    whole = counts_of([*one, *two])
    assert torch.equal(counts_of(two, counts_of(one)), whole)
    assert torch.equal(counts_of(one, counts_of(two)), whole)
    assert whole.dtype == torch.int32
    for row, piece in itertools.product(range(4), range(V)):
        shown = sum(piece in pieces for pieces, label in [*one, *two] if label == row)
        assert int(whole[row, piece]) == shown


@given(TEXTS, st.permutations(range(V)))
def test_an_urn_drawn_from_piece_after_piece(texts: list[tuple[set[int], int]], order: list[int]) -> None:
    """Each piece by the urn as it is after those before it; whatever the order, the product is the same."""
    counts, shown = counts_of(texts), order[:3]
    said = dictionary.log_densities(dictionary.ready(counts), [torch.tensor(sorted(shown))])[0]
    for row, found in zip(counts.double() + SMOOTHING, said.tolist(), strict=True):
        urn, wanted = row.clone(), 0.0
        for piece in shown:
            wanted += math.log(float(urn[piece] / urn.sum()))
            urn[piece] += 1
        assert found == pytest.approx(wanted, abs=1e-9)


def test_texts_of_one_piece_have_probabilities_that_sum_to_one() -> None:
    counts = counts_of([({0, 1, 5}, 0), ({2}, 1), ({0}, 0)])
    every = [torch.tensor([v]) for v in range(V)]
    said = dictionary.log_densities(dictionary.ready(counts), every).exp()
    torch.testing.assert_close(said.sum(dim=0), torch.ones(4, dtype=torch.float64))


def test_a_class_is_told_by_its_pieces_and_by_nobody_else_s() -> None:
    counts = counts_of([({0, 1}, 0), ({2, 3}, 1)])
    said = dictionary.log_densities(dictionary.ready(counts), [torch.tensor([0, 1]), torch.tensor([3])])
    assert said[:, :2].argmax(dim=1).tolist() == [0, 1]
    more = counts_of([({0, 4}, 1)] * 9, counts)
    assert torch.equal(more[0], counts[0])
    again = dictionary.log_densities(dictionary.ready(more), [torch.tensor([0, 1])])
    assert torch.equal(again[:, 0], said[:1, 0])


def test_a_text_of_no_pieces_is_as_likely_anywhere() -> None:
    said = dictionary.log_densities(
        dictionary.ready(counts_of([({0}, 0)] * 7)), [torch.tensor([], dtype=torch.int64)]
    )
    assert said.tolist() == [[0.0] * 4]


def test_rare_pieces_of_a_well_known_class_tell_less_than_of_a_small_one() -> None:
    """Absence is evidence too: the more texts of a class were seen without a piece, the less it is theirs."""
    counts = counts_of([*itertools.repeat(({0, 1}, 0), 50), ({0, 1}, 1)])
    said = dictionary.log_densities(dictionary.ready(counts), [torch.tensor([5])])[0]
    assert said[0] < said[1] < said[2]
