"""Curvature in the outputs: the root that signs are put through."""

from __future__ import annotations

import torch

from trainers.likelihood import softmax_root


def test_signs_give_the_hessian_of_the_nll_on_average() -> None:
    """E[g g'] over signs is diag p - p p', for every example by itself."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.tensor([[0.3, -1.0, 2.0], [4.0, 0.0, -4.0]], dtype=torch.float64)
    probs = torch.softmax(logits, dim=1)
    for p in probs:
        signs = torch.randn(200_000, 3, generator=rng, dtype=torch.float64).sign()
        g = softmax_root(p.expand(200_000, 3), signs)
        torch.testing.assert_close(g.T @ g / len(g), torch.diag(p) - torch.outer(p, p), atol=2e-3, rtol=0)


def test_an_output_that_is_sure_has_no_curvature() -> None:
    sure = softmax_root(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, -1.0]]))
    assert torch.equal(sure, torch.zeros(1, 2))
