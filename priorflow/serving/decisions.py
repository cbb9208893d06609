"""Promote and rollback over HTTP: what the page's buttons do. There only with a key of their own.

A decision is taken by the same functions as on the command line: in the log first, then aliases and webhook.
The key comes in a header that no other site can have a browser send, so there is nothing to forge; no cookie
is set or read.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from posterior.snapshot import (
    Action,
    Decision,
    LedgerCorrupt,
    LedgerError,
    LedgerUnavailable,
    LogMoved,
)
from priorflow.carrying_out import carry_out, follow
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.deciding import Bench, ContinueFrom, NotAllowed, StandsAlready
from priorflow.masking import without_passwords
from priorflow.opening import NoLedger, reading
from priorflow.quantities import format_instant
from priorflow.serving import problems
from priorflow.serving.limits import require_key
from priorflow.serving.problems import Problem

_REFUSALS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
_STATUS: Final[tuple[tuple[type[LedgerError], HTTPStatus], ...]] = (
    (NotAllowed, HTTPStatus.CONFLICT),
    (LogMoved, HTTPStatus.CONFLICT),
    (NoLedger, HTTPStatus.SERVICE_UNAVAILABLE),
    (LedgerUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (LedgerCorrupt, HTTPStatus.INTERNAL_SERVER_ERROR),
    (LedgerError, HTTPStatus.UNPROCESSABLE_ENTITY),
)

BEARER: Final = HTTPBearer(
    auto_error=False, description="The key of serve.api_key; to decide, that of serve.decision_key."
)  # for OpenAPI to show
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{6,64}$")]
# Controls, and what turns the order of letters: a line of the log must read as it is written.
_UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_PRINTED: Final = rf"^[^{_UNSEEN}]*[^\s{_UNSEEN}][^{_UNSEEN}]*$"  # one line that says something
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500, pattern=_PRINTED)]
By = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100, pattern=_PRINTED)]


class PromoteIn(BaseModel):
    """Put a snapshot in charge."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "the new queue", "by": "ada"}]}
    )

    reason: Reason
    """Why; kept in the decision log."""
    by: By | None = None
    """Who asks, as they call themselves; kept in the decision log beside this host's name."""
    snapshot: Sha | None = None
    """Sha, or its beginning; the gates' newest candidate if nothing is said."""
    force: bool = False
    """Go past the gates."""


class RollbackIn(BaseModel):
    """Put a former champion in charge again."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "complaints since Monday", "by": "ada"}]}
    )

    reason: Reason
    """Why; kept in the decision log."""
    by: By | None = None
    """Who asks, as they call themselves; kept in the decision log beside this host's name."""
    to: Sha | None = None
    """A former champion; the one before the present if nothing is said."""
    continue_from: ContinueFrom = "head"
    """What learning goes on from."""


class DecisionOut(BaseModel):
    """A line of the decision log; aliases and webhook follow it."""

    line: int
    action: Literal["promote", "rollback"]
    snapshot: str
    previous: str | None
    """The champion before."""
    by: str
    reason: str
    at: str
    hash: str


def offer(
    app: FastAPI, settings: Settings, console: Console, *, decided: Callable[[], None] = lambda: None
) -> None:
    """Let whoever has the key decide; nothing is offered where there is no key. `decided` hears of it."""
    key = settings.serve.key_to_decide()
    if key is None:
        return

    def keyed(request: Request) -> None:
        require_key(request, key)

    guarded = [Depends(BEARER), Depends(keyed)]
    refusals = problems.documented(*_REFUSALS)

    def carried_out(line: Decision) -> None:
        decided()
        with _said(console), reading(settings, migrates=False) as (ledger, blobs):
            carry_out(settings, ledger, blobs, line, console)

    @app.post("/promote", responses=refusals, dependencies=guarded)
    def promote(body: PromoteIn, later: BackgroundTasks) -> DecisionOut:
        """Put a snapshot in charge, if the gates' newest finding on it allows, or by force."""
        with _bench(settings, body.by, console) as bench:
            line = bench.promote(body.snapshot, force=body.force, reason=body.reason)
        later.add_task(carried_out, line)
        return _told(line)

    @app.post("/rollback", responses=refusals, dependencies=guarded)
    def rollback(body: RollbackIn, later: BackgroundTasks) -> DecisionOut:
        """Put a former champion in charge again."""
        with _bench(settings, body.by, console) as bench:
            line = bench.roll_back(body.to, reason=body.reason, continue_from=body.continue_from)
        later.add_task(carried_out, line)
        return _told(line)


@contextmanager
def _bench(settings: Settings, by: str | None, console: Console) -> Iterator[Bench]:
    """Open the ledger to decide; what it refuses becomes a problem.

    Where the decision stands already, what follows from it is done first, as by the commands: whoever took it
    may have died before. The name is what somebody says of themselves; the rest of the line tells it from a
    gate or a user.
    """
    at_ms = time.time_ns() // 1_000_000
    actor = f"{by or 'somebody'}, by key at {socket.gethostname()}"
    try:
        with reading(settings, migrates=False) as (ledger, blobs):
            bench = Bench(ledger=ledger, blobs=blobs, chain=settings.chain.name, actor=actor, at_ms=at_ms)
            try:
                yield bench
            except StandsAlready as already:
                follow(settings, ledger, blobs, already.line, console, at_ms=at_ms)
                raise
    except LedgerError as refused:
        status = next(status for kind, status in _STATUS if isinstance(refused, kind))
        raise Problem(status, without_passwords(str(refused))) from refused


@contextmanager
def _said(console: Console) -> Iterator[None]:
    """Have a fault of what follows a decision said, not raised: the decision stands and was answered."""
    try:
        yield
    except Exception as failed:  # noqa: BLE001 - whatever it is, a run repeats what follows
        console.warn(f"recorded; what follows was left to the run: {failed}", event="not_carried_out")


def _told(line: Decision) -> DecisionOut:
    action: Action = line.action
    assert action in {"promote", "rollback"}
    return DecisionOut(
        line=line.seq,
        action="promote" if action == "promote" else "rollback",
        snapshot=line.snapshot,
        previous=line.previous,
        by=line.actor,
        reason=line.evidence["reason"],
        at=format_instant(line.at_ms),
        hash=line.hash,
    )
