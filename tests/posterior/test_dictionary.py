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
from posterior.dictionary import FLAT, SHARED

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
    everywhere = [float(counts[:, v].sum()) + FLAT for v in range(V)]
    prior = torch.tensor([SHARED * c / sum(everywhere) for c in everywhere], dtype=torch.float64)
    for row, found in zip(counts.double() + prior, said.tolist(), strict=True):
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


def test_a_class_is_told_by_its_pieces_and_its_row_is_nobody_else_s() -> None:
    counts = counts_of([({0, 1}, 0), ({2, 3}, 1)])
    said = dictionary.log_densities(dictionary.ready(counts), [torch.tensor([0, 1]), torch.tensor([3])])
    assert said[:, :2].argmax(dim=1).tolist() == [0, 1]
    more = counts_of([({0, 4}, 1)] * 9, counts)
    assert torch.equal(more[0], counts[0])


def test_a_word_that_is_common_everywhere_is_no_evidence_against_a_class_of_one_text() -> None:
    """Until it has evidence of its own a class speaks as all do; under a flat prior the word is news."""
    counts = counts_of([*itertools.repeat(({0, 1}, 0), 400), *itertools.repeat(({0, 2}, 1), 400), ({3}, 2)])
    asked = [torch.tensor([0]), torch.tensor([3]), torch.tensor([0, 3])]
    common, rare, mixed = dictionary.log_densities(dictionary.ready(counts), asked).tolist()
    assert common[2] == pytest.approx(common[3], abs=2e-3)  # as a class of which nothing is known
    assert abs(common[2] - common[0]) < 0.3
    assert rare[2] == max(rare)
    assert mixed[2] == max(mixed)


def test_without_any_text_every_piece_is_as_likely_as_each_other() -> None:
    assert dictionary.shared(dictionary.nothing(V)).tolist() == pytest.approx([1 / V] * V)


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
