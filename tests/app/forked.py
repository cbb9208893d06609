"""`python -m MODULE WORDS` as a process of its own that need not import everything again.

It is forked from what lives are forked from (`tests.app.lives`), and from there on a process like any other:
with a folder, an environment, two streams and an exit status, negative where a signal killed it.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from connectors.mlflow_store import QUIET
from tests.app.lives import FORKS, start_fork_server


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and what it said."""

    returncode: int | None
    stdout: str
    stderr: str


def with_fork_server() -> None:
    """Start what is forked from, under an environment that suits all that is done there."""
    with pytest.MonkeyPatch.context() as patch:
        # MLflow reads these when it is imported, Ray whether a cluster wants the user's token; tokenizers
        # whether to start threads, which a fork would lose.
        ours = {"RAY_AUTH_MODE": "token", "TOKENIZERS_PARALLELISM": "false"}
        for name, value in {**QUIET, **ours}.items():
            patch.setenv(name, value)
        start_fork_server()


def forked(module: str, *words: str) -> Ended:
    """Run a module as a command, in the folder and the environment that are ours now."""
    with_fork_server()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = FORKS.Process(
            target=_become, args=(module, words, Path.cwd(), dict(os.environ), (out, err))
        )
        process.start()
        process.join()
        return Ended(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def _become(
    module: str,
    words: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    streams: tuple[Path, Path],
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, path in enumerate(streams, start=1):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
