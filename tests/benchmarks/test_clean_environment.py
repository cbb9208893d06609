"""The check of a clean environment can fail: every number of an answer is looked at."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.clean_environment import as_row, differing
from priorflow.flavour import OUTPUTS

SERVED: dict[str, Any] = {
    "event_id": "t0",
    "prediction_id": "t0.aaaaaaaaaaaa",
    "label": "linux",
    "probabilities": {"linux": 0.7, "money": 0.2},
    "novelty": 0.1,
    "interval": [0.6, 0.8],
    "uncertainty": {"total": 0.8, "aleatoric": 0.7, "epistemic": 0.1},
    "abstain": False,
    "risk": 0.1,
    "snapshot": "a" * 64,
    "version": "3",
}


def test_an_answer_of_the_server_s_has_every_column_of_mlflow_s_table() -> None:
    assert as_row(SERVED).keys() == OUTPUTS.keys()


@pytest.mark.parametrize("column", OUTPUTS)
def test_one_column_that_is_another_is_named(column: str) -> None:
    row = as_row(SERVED)
    assert differing([row, row], [row, dict(row)]) == []
    assert differing([row, row], [row, {**row, column: "another"}]) == [f"1: {column}"]
    assert differing([row], [{name: row[name] for name in row if name != column}]) == [f"0: {column}"]


def test_a_bit_is_a_difference_and_a_missing_answer_an_error() -> None:
    row = as_row(SERVED)
    assert differing([row], [{**row, "novelty": math.nextafter(0.1, 1)}]) == ["0: novelty"]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        differing([row, row], [row])
