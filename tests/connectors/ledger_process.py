"""A process of its own that writes a chain, and may be told to die or freeze at a named step.

    python -m tests.connectors.ledger_process URL BLOBS ROWS [--strike STEP] [--signal NAME] ...

It says on stdout what it does, one word a line: `taken EPOCH`, `row SEQ SHA`, `held`, `fenced`, `done`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from connectors.blobs import open_blobs
from connectors.lease import this_owner
from connectors.ledger import open_ledger
from posterior.snapshot import Blobs, Fence, Fenced, LeaseHeld, Ledger, LedgerUnavailable, Snapshot
from tests.connectors.chain_builder import CIRCUMSTANCE, Writer, a_chain, learned, root


def main() -> None:
    args = arguments()
    left = args.after

    def crash(step: str) -> None:
        nonlocal left
        left -= step == args.strike
        if step == args.strike and left == 0:
            os.kill(os.getpid(), getattr(signal, args.signal))

    blobs = open_blobs(args.blobs, crash=crash)
    ledger = open_ledger(args.url, blobs, idle_s=args.idle_s, crash=crash)
    ledger.create(a_chain())
    try:
        fence = ledger.acquire("main", owner=this_owner(), ttl_s=600, takeover=args.takeover)
        say(f"taken {fence.epoch}")
        if args.wait:
            sys.stdin.readline()
        write(Writer(ledger, blobs, fence, first(ledger, fence, blobs)), args.rows)
        say("done")
    except LeaseHeld as held:
        say(f"held {held}")
    except (Fenced, LedgerUnavailable) as refused:
        say(f"fenced {refused}")


def first(ledger: Ledger, fence: Fence, blobs: Blobs) -> Snapshot:
    head = ledger.head("main")
    if head is None:
        head = root(blobs)
        ledger.commit(fence, head, CIRCUMSTANCE)
    return head


def write(writer: Writer, rows: int) -> None:
    """Go on to row number `rows`, finishing first what a predecessor has planned."""
    while writer.head.seq < rows:
        plan = writer.ledger.open_plan("main") or writer.begin()
        row = writer.commit(learned(writer.blobs, writer.head, plan))
        say(f"row {row.seq} {row.sha}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("blobs")
    parser.add_argument("rows", type=int)
    parser.add_argument("--strike", default="")
    parser.add_argument("--after", type=int, default=3)
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--takeover", action="store_true")
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--idle-s", type=float, default=10.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
