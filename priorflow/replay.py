"""`priorflow replay`: learn from history again, to prove a chain or to ask "what if".

Verifying takes each snapshot's parent from the ledger, reads the log (or an archive) from the parent's
positions, closes the same window, learns it again and compares the sha of what comes out. Nothing is
written. A difference is explained as far as the ledger allows: which record is not the one it was.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final, final

from connectors.blobs import open_blobs
from connectors.codec import decoder
from connectors.ledger import SqlLedger, open_ledger
from posterior.snapshot import Blobs, LedgerError, Snapshot
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.judging import scorer
from priorflow.learning import differences
from priorflow.opening import NoLedger, require_history
from priorflow.replay_erased import Past
from priorflow.rules import codec_rules
from priorflow.run import (
    RunOutcome,
    chain_of,
    circumstance,
    execute,
    open_source,
    open_updater,
    rules_of,
)
from stream.source import Source
from trainers.again import closing_again
from trainers.branching import DECISION, row_for
from trainers.deriving import derive
from trainers.loop import resume
from trainers.parts import Parts, Rules
from trainers.planning import plan_of, plan_row
from trainers.window import Updater

_STORES: Final = {"events": 4, "orphans": 3}  # where a waiting record's position stands in its row


class CannotReplay(LedgerError):
    """There is nothing to replay, or the log no longer reaches the window."""


@final
class _HashOnly:
    """Blobs that can be read, and whose writes are only named: verifying writes nothing."""

    def __init__(self, real: Blobs) -> None:
        self._real = real
        self.made: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Return the sha that storing would give."""
        sha = hashlib.sha256(data).hexdigest()
        self.made = {sha: data, **dict(list(self.made.items())[:3])}
        return sha

    def get(self, sha: str) -> bytes:
        """Read a real blob."""
        return self._real.get(sha)


def verify(
    settings: Settings,
    *,
    chain: str,
    first: int | None,
    last: int | None,
    source: str | None,
    console: Console,
) -> list[tuple[int, str, bool | None]]:
    """Learn windows `first` to `last` again; return (window, sha, the same bit for bit).

    None where that can be told no more: the window learned from what has been erased since.
    """
    wanted = settings if source is None else settings.model_copy(update={"source": source})
    with ExitStack() as stack:
        blobs = open_blobs(wanted.blobs_url)
        ledger = open_ledger(wanted.ledger_url, blobs)
        stack.callback(ledger.close)
        rules = rules_for(wanted, ledger, chain)
        history = require_history(ledger, chain)
        rows = [
            (parent, child)
            for parent, child in itertools.pairwise(history)
            if child.kind != "root" and (first or 0) <= child.index <= (last or child.index)
        ]
        log = open_source(wanted)
        stack.callback(log.close)
        with console.progress("starting the learner"):
            updater = open_updater(wanted)
        stack.callback(updater.close)
        parts = parts_again(wanted, ledger, _HashOnly(blobs), log, updater)
        out = []
        with console.progress("learning again", total=len(rows)) as bar:
            for parent, child in rows:
                same = _again(parts, rules, parent, child, console)
                out.append((child.index, child.sha, same))
                bar.advance()
    return out


def branch(
    settings: Settings,
    *,
    into: str,
    from_chain: str,
    first: int | None,
    last: int | None,
    source: str | None,
    console: Console,
) -> RunOutcome:
    """Learn the same log into a new chain with other settings; never published, never a champion."""
    if first is not None:
        msg = "a new chain learns from the beginning; --from goes with --verify"
        raise CannotReplay(msg)
    chosen = settings.model_copy(
        update={
            "chain": settings.chain.model_copy(update={"name": into}),
            "source": source or settings.source,
            "mlflow": settings.mlflow.model_copy(update={"enabled": False}),
            "gate": settings.gate.model_copy(update={"enabled": False}),
            "archive": None,
        }
    )
    with ExitStack() as stack:
        ledger = open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))
        stack.callback(ledger.close)
        require_history(ledger, from_chain)
        if ledger.chain(into) is not None:
            msg = f"chain {into!r} exists; `priorflow run --set chain.name={into}` goes on with it"
            raise CannotReplay(msg)
        ledger.create(chain_of(chosen))
        copy_floors(ledger, from_chain, into)
    return execute(chosen, until_end=True, max_windows=last, console=console)


def copy_floors(ledger: SqlLedger, from_chain: str, into: str) -> None:
    """Give the new chain the old one's floors, so that both see the log in the same order."""
    floors = [(f.topic, f.partition, f.at_offset, f.floor_ms) for f in ledger.floors(from_chain)]
    fence = ledger.acquire(into, owner="replay", ttl_s=10)
    try:
        ledger.add_floors(fence, floors)
    finally:
        ledger.release(fence)


def rules_for(settings: Settings, ledger: SqlLedger, name: str) -> Rules:
    """Return a chain's rules; CannotReplay says which settings are not the ones it was begun with."""
    known = ledger.chain(name)
    if known is None:
        names = ", ".join(c.name for c in ledger.chains()) or "none yet"
        msg = f"there is no chain {name!r} in this ledger; there are: {names}"
        raise NoLedger(msg)
    here = chain_of(settings)
    found = list(differences(here.settings, known.settings))
    if found:
        listed = "\n  ".join(found)
        msg = f"these settings are not those of chain {name!r}:\n  {listed}\nUse its configuration"
        raise CannotReplay(msg)
    return rules_of(settings, known)


def parts_again(settings: Settings, ledger: SqlLedger, blobs: Blobs, log: Source, updater: Updater) -> Parts:
    """Return the parts that derive what was there already: they set nothing aside and keep no archive."""
    return Parts(
        source=log,
        decode=decoder(codec_rules(settings)),
        ledger=ledger,
        blobs=blobs,
        updater=updater,
        score=scorer(settings),
        aside=lambda _: None,
        keep=lambda _: None,
        circumstance=circumstance,
        now_ms=lambda: 0,
    )


def _again(parts: Parts, rules: Rules, parent: Snapshot, child: Snapshot, console: Console) -> bool | None:
    """Derive one snapshot again; tell what differs if anything does, None if that was erased."""
    past = Past(parts.ledger, parts.blobs, child.chain)
    if child.kind == "branch":
        return _branched_again(parts, past, parent, child, console)
    if child.kind in {"erased", "relabelled"}:
        return _changed_again(past, parent, child, console)
    by = past.learned_from_erased(child)
    if by is not None:
        console.say(
            f"window {child.index} learned from what row {by} erased: it cannot be learned again",
            event="erased",
            index=child.index,
            by=by,
        )
        return None
    intake = resume(parts, rules, parent)
    closing = closing_again(parts, rules, intake)
    if closing is None:
        msg = f"window {child.index}: the log ends before the window closes; it held more then"
        raise CannotReplay(msg)
    plan = plan_row(plan_of(rules, parent, closing)) if closing.kind == "window" else None
    known = None if child.plan is None else parts.ledger.plan(child.chain, child.plan)
    if known is not None and dict(known.content["runtime"]) != dict(rules.runtime):
        console.warn(
            f"window {child.index} was learned under {known.content['runtime']}, this is "
            f"{dict(rules.runtime)}: equal bits are not promised",
            event="runtime",
        )
    made = derive(parts, rules, parent, intake, closing, plan.sha if plan else None)
    if made.snapshot.sha == child.sha:
        return True
    assert isinstance(parts.blobs, _HashOnly)
    if past.same_but_for_erased(made.snapshot, parts.blobs.made[made.snapshot.stream_state], child):
        return True
    for why in _why(parts, made.snapshot, child, plan.content if plan else {}, known):
        console.warn(f"window {child.index}: {why}", event="differs", index=child.index)
    return False


def _branched_again(parts: Parts, past: Past, parent: Snapshot, child: Snapshot, console: Console) -> bool:
    """Derive a row that goes on from an older belief from the decision that asked for it."""
    line = next(
        (d for d in parts.ledger.decisions(child.chain) if d.hash == child.report.get(DECISION)), None
    )
    found = None if line is None else parts.ledger.snapshot(line.snapshot)
    if line is not None and found is not None:
        history, erasures = parts.ledger.history(child.chain), parts.ledger.erasures(child.chain)
        made = row_for(line, parent, found[0], history[: child.seq], parts.blobs, erasures)
        assert isinstance(parts.blobs, _HashOnly)
        content = parts.blobs.made[made.stream_state]
        if made.sha == child.sha or past.same_but_for_erased(made, content, child):
            return True
    console.warn(f"row {child.seq}: no decision asked for this branch as it is", event="differs")
    return False


def _changed_again(past: Past, parent: Snapshot, child: Snapshot, console: Console) -> bool:
    """Derive a row that forgets, or renames, from its parent and from what it says itself."""
    again = past.forgotten_again if child.kind == "erased" else past.renamed_again
    if again(parent, child):
        return True
    console.warn(f"row {child.seq}: it is not its parent with what it says was {child.kind}", event="differs")
    return False


def _why(parts: Parts, made: Snapshot, child: Snapshot, plan: Mapping[str, Any], known: Any) -> Iterator[str]:
    """Yield what differs, records first: an altered record is the likeliest reason."""
    if known is not None:
        yield from _members(plan["members"], known.content["members"])
    if made.stream_state != child.stream_state and not parts.ledger.erasures(child.chain):
        yield from _waiting(parts.blobs, made, child)
    if made.rejected != child.rejected:
        odd = sorted(set(made.rejected) ^ set(child.rejected))
        yield f"set aside now and then differ: {', '.join(odd[:5])}"
    if made.posterior != child.posterior:
        yield f"the posterior differs: {made.posterior[:12]} now, {child.posterior[:12]} then"
    for name in ("settings", "labels", "counts", "report", "spans"):
        if getattr(made, name) != getattr(child, name):
            yield f"{name} differ"


def _members(now: list[list[str]], then: list[list[str]]) -> Iterator[str]:
    for i, (a, b) in enumerate(zip(now, then, strict=False)):
        for at, sha, before_at, before in ((a[0], a[1], b[0], b[1]), (a[2], a[3], b[2], b[3])):
            if at == before_at and sha != before:
                yield f"record {at} is not the one that was learned: sha256 {sha[:12]}, was {before[:12]}"
            elif at != before_at:
                yield f"member {i} is {at}, was {before_at}"
                return
    if len(now) != len(then):
        yield f"the window has {len(now)} members, had {len(then)}"


def _waiting(blobs: Blobs, made: Snapshot, child: Snapshot) -> Iterator[str]:
    assert isinstance(blobs, _HashOnly)
    now = json.loads(blobs.made[made.stream_state])
    then = json.loads(blobs.get(child.stream_state))
    for store, place in _STORES.items():
        rows_now = {row[0]: row for row in now["store"][store]}
        rows_then = {row[0]: row for row in then["store"][store]}
        for name in sorted({*rows_now, *rows_then}):
            a, b = rows_now.get(name), rows_then.get(name)
            if a is None or b is None or a[place + 1] != b[place + 1]:
                topic, partition, offset = (a or b or [])[place] if store == "orphans" else (a or b or [])[4]
                yield f"record {topic}[{partition}]@{offset} is not the one that was read then"
