"""Curvature in the outputs: the root that signs are put through."""

from __future__ import annotations

import torch

from tests.trainers.orders import TOPICS
from trainers.likelihood import Classification, softmax_root
from trainers.model import HEAD, AdaptedModel


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


def test_a_class_of_two_rows_is_as_likely_as_both_together(model: AdaptedModel) -> None:
    """And its curvature is that of the softmax over classes: rows of one class have none between them."""
    texts = [model.activate(text) for text in TOPICS.values()]
    rows = torch.randn(1, 3, model.dim + 1, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    draw = {slot.name: torch.zeros(2, *slot.shape) for slot in model.slots(3)} | {HEAD: 0.1 * rows}
    p = torch.softmax(model.logits(texts, draw), dim=1)
    merged = Classification(model, texts, [0, 1], 2, "aba")
    assert merged.outputs == 2
    wanted = -((p[0, 0] + p[0, 2]).log() + p[1, 1].log())
    torch.testing.assert_close(merged.nll([0, 1], draw), wanted)
    leaf = draw[HEAD].clone().requires_grad_()
    signs = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
    (found,) = torch.autograd.grad(merged.bend([0, 1], {**draw, HEAD: leaf}, signs), leaf)
    shares = torch.stack([p[:, 0], p[:, 2]]) / (p[:, 0] + p[:, 2])
    torch.testing.assert_close(found[:, 0] * shares[1].unsqueeze(1), found[:, 2] * shares[0].unsqueeze(1))
    torch.testing.assert_close(found.sum(dim=1), torch.zeros_like(found[:, 0]), atol=1e-6, rtol=1e-4)
