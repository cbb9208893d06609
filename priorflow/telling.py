"""Whoever is to hear of decisions outside, as the settings name them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from connectors.decision_events import MEDIA_TYPE
from connectors.herald import Herald
from connectors.webhook import Webhook
from posterior.snapshot import Ledger
from priorflow.config import Settings
from priorflow.console import Console

ONCE_S: Final = 10.0  # how long a command waits for a receiver; a run tells what is left


def herald(
    settings: Settings, ledger: Ledger, chain: str, tell: Callable[[str | None], None]
) -> Herald | None:
    """Return who tells of a chain's decisions, not yet begun; None where nobody wants to hear."""
    decisions = settings.decisions
    if decisions.webhook is None:
        return None
    hook = Webhook(
        decisions.webhook.get_secret_value(),
        media_type=MEDIA_TYPE,
        secret=decisions.secret(),
        timeout_s=decisions.webhook_timeout / 1000,
    )
    return Herald(ledger, hook.post, chain=chain, tell=tell)


def telling(console: Console) -> Callable[[str | None], None]:
    """Return how a run says that its receiver is away, and that it is back."""

    def tell(error: str | None) -> None:
        if error is None:
            console.say("the webhook takes decisions again", event="telling")
        else:
            console.warn(f"decisions wait for the webhook: {error}", event="not_telling", error=error)

    return tell


def open_herald(settings: Settings, ledger: Ledger, console: Console, stack: ExitStack) -> Herald | None:
    """Start telling of the run's chain, which ends with `stack`; None where nobody wants to hear."""
    one = herald(settings, ledger, settings.chain.name, telling(console))
    if one is not None:
        one.start()
        stack.callback(one.stop)
    return one


def tell_once(settings: Settings, ledger: Ledger, chain: str, console: Console) -> None:
    """Tell what there is to tell, as far as the receiver is there; a run repeats it in any case."""
    one = herald(settings, ledger, chain, lambda _: None)
    if one is None:
        return
    one.start()
    taken = one.flush(ONCE_S)
    one.stop()
    if not taken:
        why = one.error or f"no answer within {ONCE_S:.0f} s"
        console.warn(f"recorded; the run tells the webhook once it answers: {why}", event="not_telling")
