"""A process of its own that promotes a snapshot by force, and dies at a named step.

python -m tests.app.promoter HOME SHA STEP
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from connectors.aliases import Aliases
from priorflow.config import load
from priorflow.deciding import Bench
from priorflow.opening import reading, registry


def main(home: str, sha: str, fatal: str) -> None:
    def crash(step: str) -> None:
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = load(overrides={"home": home})
    with reading(settings) as (ledger, blobs):
        bench = Bench(ledger=ledger, blobs=blobs, chain="main", actor="ada@host", at_ms=1, crash=crash)
        bench.promote(sha, force=True, reason="a test")
        models = registry(settings)
        Aliases(ledger=ledger, blobs=blobs, registry=models, chain="main", crash=crash).settle()


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), *sys.argv[2:])
