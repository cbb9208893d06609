"""What flipout does to a belief: each token keeps its variance, tokens lose what they have in common."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from posterior.blob import Blob
from posterior.family import ONE_TASK, Draw, Slot
from posterior.flipout import SIGNS, low
from tests.posterior.cases import normals

TOKENS, WIDE, RANK, MANY = 6, 5, 2, 4000
SITE = (Slot("q.A", (RANK, WIDE), "down"), Slot("q.B", (4, RANK), "up"))


def draw(*, flipout: bool, n: int = MANY, seed: int = 0) -> Draw:
    family = Blob(sd_down=0.7, flipout=flipout)
    state = family.base(SITE, seed=1, centres={})
    return family.sample(state, normals(family.noise(state), n, seed), [ONE_TASK] * n)


def tokens() -> Tensor:
    """Return tokens of one text, (T, d_in): they have much in common, as tokens of a text do."""
    rng = torch.Generator().manual_seed(2)
    return torch.randn(WIDE, generator=rng) + 0.3 * torch.randn(TOKENS, WIDE, generator=rng)


def seen(*, flipout: bool) -> Tensor:
    """Return A x of every token under each of many draws, (draws, T, rank)."""
    return low(tokens().expand(MANY, -1, -1), draw(flipout=flipout), "q.A")


@pytest.mark.parametrize("flipout", [False, True])
def test_a_token_alone_sees_the_belief_s_variance(flipout: bool) -> None:
    wanted = 0.7**2 * tokens().square().sum(dim=1)
    found = seen(flipout=flipout).var(dim=0)
    torch.testing.assert_close(found, wanted[:, None].expand_as(found), rtol=0.12, atol=0)


def test_the_mean_of_a_text_keeps_a_sixth_of_its_variance_under_flipout() -> None:
    """One draw: |mean of x|^2. Flipout: mean of |x|^2, over T; that is 1/T of it where tokens agree."""
    x = tokens()
    one, signs = (0.7**2 * v for v in (x.mean(dim=0).square().sum(), x.square().sum() / TOKENS**2))
    assert float(signs / one) < 0.25
    for flipout, wanted in ((False, one), (True, signs)):
        found = seen(flipout=flipout).mean(dim=1).var(dim=0)
        torch.testing.assert_close(found, wanted.expand(RANK), rtol=0.12, atol=0)


def test_both_agree_on_the_mean() -> None:
    wanted = tokens() @ Blob().base(SITE, seed=1, centres={}).mean["q.A"].T
    for flipout in (False, True):
        found = seen(flipout=flipout)
        error = found.std(dim=0) / MANY**0.5
        assert bool(((found.mean(dim=0) - wanted).abs() < 5 * error).all())


def test_signs_belong_to_the_sequence_and_the_slot() -> None:
    x, wide = tokens().expand(2, -1, -1), draw(flipout=True, n=2)
    together = low(x, wide, "q.A")
    alone = low(x[:1], {k: v[-1:] for k, v in wide.items()}, "q.A")
    torch.testing.assert_close(together[1:], alone)
    padded = low(torch.cat([x, torch.zeros(2, 3, WIDE)], dim=1), wide, "q.A")
    torch.testing.assert_close(padded[:, :TOKENS], together)
    renamed = {k.replace("q.A", "v.A"): v for k, v in wide.items()}
    assert not torch.allclose(low(x, renamed, "v.A"), together)
    keyed = wide[SIGNS].flip(0)
    assert not torch.allclose(low(x, {**wide, SIGNS: keyed}, "q.A"), together)
