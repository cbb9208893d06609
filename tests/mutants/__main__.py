"""Plant one bug after the other in a copy of the code, and see which law fails.

    python -m tests.mutants [--only TEXT] [--processes 2]

Ends with `mutants: N caught, M survived`; exit status 1 if any survived, 2 if a mutant's text is not in the
code or a law fails without any bug. Every mutant runs in a process forked from one that has already
imported what takes long, and never in the tree it was started from.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hypothesis
import pytest
import torch
import transformers

from tests.mutants.answers import ANSWERS
from tests.mutants.classes import CLASSES
from tests.mutants.core import CORE
from tests.mutants.doors import DOORS
from tests.mutants.families import FAMILIES
from tests.mutants.gates import GATES
from tests.mutants.generative import GENERATIVE
from tests.mutants.mutant import Mutant, NotThere
from tests.mutants.panels import PANELS
from tests.mutants.shadows import SHADOWS

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PACKAGES: Final = ("posterior", "stream", "trainers", "connectors", "priorflow", "examples", "tests")
LAWS: Final = (
    "tests/posterior",
    "tests/trainers/test_update.py",
    "tests/trainers/test_curvature.py",
    "tests/trainers/test_likelihood.py",
    "tests/trainers/test_tasks.py",
    "tests/trainers/test_recovery.py",
    "tests/trainers/test_sites.py",
    "tests/trainers/test_panelled.py",
    "tests/trainers/test_answer.py",
    "tests/trainers/test_abstention.py",
    "tests/trainers/test_gates.py",
    "tests/trainers/test_lesson.py",
    "tests/trainers/test_guards.py",
    "tests/app/test_promotion.py",
    "tests/app/test_tenure.py",
)
# Plain asserts: what was imported before the fork cannot be rewritten, and nobody reads the output.
QUIET: Final = ("-x", "-q", "--no-summary", "--assert=plain", "-p", "no:cacheprovider", "--hypothesis-seed=1")
ALREADY_IMPORTED: Final = (hypothesis, torch, transformers)


@dataclass(eq=False)  # pytest keeps its plugins in sets
class Witness:
    """What a run of pytest came to: the first test that failed, or what kept tests from running."""

    failed: str | None = None
    broken: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the first failure."""
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note that a file could not even be read: no law has spoken."""
        if report.failed and self.broken is None:
            self.broken = f"{report.nodeid} cannot be collected: {report.longreprtext[-400:]}"


# The law that failed, what kept laws from being tried, and seconds: plain values, for a process that has
# imported the copy's packages can send no object of ours.
Found = tuple[str | None, str | None, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A mutant, the law that caught it or None, and how long that took."""

    mutant: Mutant
    law: str | None
    broken: str | None
    seconds: float


def judged(mutant: Mutant) -> Found:
    """Run the laws on a copy of the code with this bug in it; the process is good for nothing else after."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        (copy / mutant.file).write_text(mutant.mutated(copy), encoding="utf-8")
        witness = run(copy, [[mutant.law], LAWS])
    return witness.failed, witness.broken, time.monotonic() - begun


def sound(laws: Sequence[str]) -> Found:
    """Run laws on a copy of the code as it is."""
    with tempfile.TemporaryDirectory() as folder:
        witness = run(copied(Path(folder)), [laws])
    return witness.failed, witness.broken, 0.0


def copied(folder: Path) -> Path:
    """Return a folder with the packages and what configures pytest."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(copy: Path, rounds: Sequence[Sequence[str]]) -> Witness:
    """Run pytest in the copy, on the copy's own packages, round after round until a test fails."""
    os.chdir(copy)
    sys.path[:] = [str(copy), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    for name in [m for m in sys.modules if m.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    witness = Witness()
    for laws in rounds:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            status = pytest.main([*QUIET, *laws], plugins=[witness])
        if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} and witness.broken is None:
            witness.broken = f"pytest ended with status {int(status)}: {said.getvalue()[-1000:]}"
        if witness.failed or witness.broken:
            break
    if not Path(str(sys.modules["posterior"].__file__)).is_relative_to(copy):
        witness.broken = "the laws ran on other code than the copy's"
    return witness


def verdicts(mutants: Sequence[Mutant], processes: int) -> Iterator[Verdict]:
    """Yield verdicts in the table's order, and at last whether the laws hold without a bug."""
    for mutant in mutants:
        mutant.mutated(ROOT)
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        caught = []
        for mutant, (law, broken, seconds) in zip(mutants, pool.imap(judged, mutants), strict=True):
            yield Verdict(mutant, law, broken, seconds)
            caught += [law] if law else []
        failed, broken, _ = pool.apply(sound, (sorted(set(caught)),)) if caught else (None, None, 0.0)
    if failed or broken:
        msg = f"without any bug, {failed or 'no law'} fails: {broken or 'mend that first'}"
        raise NotThere(msg)


def told(verdict: Verdict) -> str:
    """Return a row of the table."""
    fate = verdict.broken or verdict.law or "SURVIVED"
    law = fate.removeprefix("tests/").replace(".py::", ": ")
    return f"{verdict.mutant.about:<17}{verdict.mutant.name:<62}{verdict.seconds:>4.0f} s  {law}"


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose file, family or name holds this text")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    everything = (*CORE, *FAMILIES, *PANELS, *GENERATIVE, *CLASSES, *ANSWERS, *GATES, *SHADOWS, *DOORS)
    table = [m for m in everything if asked.only in f"{m.about} {m.file} {m.name}"]
    caught = survived = 0
    try:
        for verdict in verdicts(table, asked.processes):
            print(told(verdict), flush=True)  # noqa: T201 - a command's own output
            if verdict.broken:
                return 2
            caught, survived = caught + bool(verdict.law), survived + (not verdict.law)
    except NotThere as wrong:
        print(wrong)  # noqa: T201 - a command's own output
        return 2
    print(f"mutants: {caught} caught, {survived} survived")  # noqa: T201 - a command's own output
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
