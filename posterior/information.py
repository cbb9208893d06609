"""What a window taught: its nats, by site."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from posterior.family import Family

BETWEEN: Final = "between sites"  # no module bears a name with a space in it
_NOTHING: Final = 1e-9  # share of the whole below which what is left is rounding

W = TypeVar("W")


def site_of(slot: str) -> str:
    """Return the site whose weights a slot holds: `...query` of `...query.A`; the head is its own."""
    return slot.rpartition(".")[0] or slot


def by_site(family: Family[Any, W], state: W, prior: W, slots: Iterable[str]) -> dict[str, float]:
    """Return the nats of KL(state || prior) by site; they add up to it.

    A site's share is KL of its marginals, hence at least 0. Where sites are independent in both beliefs
    that is all. Else there is a share between sites: what the joint divergence has beyond them, which is
    no divergence. It is below 0 where weights moved along a line on which the prior had them lie.
    """
    sites: dict[str, list[str]] = {}
    for slot in slots:
        sites.setdefault(site_of(slot), []).append(slot)
    shares = {site: _share(family, state, prior, own) for site, own in sites.items()}
    whole = float(family.kl(state, prior))
    rest = whole - sum(shares.values())
    return shares | ({BETWEEN: rest} if abs(rest) > _NOTHING * whole else {})


def _share(family: Family[Any, W], state: W, prior: W, slots: list[str]) -> float:
    return float(family.kl(family.marginal(state, slots), family.marginal(prior, slots)))
