"""A real `priorflow run` in a process of its own that kills itself at a named step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from priorflow.console import Silent
from priorflow.run import execute
from tests.app.streams import small_settings


def main() -> None:
    """Run; die by SIGKILL when `step` is reached for the `at`-th time."""
    home, archive, step, at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    seen = 0

    def crash(reached: str) -> None:
        nonlocal seen
        seen += reached == step
        if reached == step and seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = small_settings(home, archive)
    execute(settings, until_end=True, takeover=True, console=Silent(), crash=crash)


if __name__ == "__main__":
    main()
