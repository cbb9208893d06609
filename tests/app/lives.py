"""Lives of `priorflow run` over one home: processes of their own, each ended by SIGKILL somewhere.

Importing torch, transformers, Ray and MLflow takes seconds; a fork server has done it once and has loaded the
frozen model, which no life changes (`tests.app.cradle`), so that a life begins in a tenth of a second.
Forking is safe there: nothing is open yet, and the only thread beside Python's own is that of pyarrow's
allocator, which knows about forks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final, final

from torch import Tensor

from connectors.crash import Crash
from posterior.snapshot import Fenced
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.exit_codes import ExitCode
from priorflow.learning import model_spec
from priorflow.run import execute
from trainers.model import AdaptedModel
from trainers.ray_update import RaySpec, RayUpdater
from trainers.update import InProcess
from trainers.window import Local, Order, Outcome, Updater

MID_TRAIN: Final = "mid-train"
LONGEST_S: Final = 240.0
SILENCE_S: Final = 3.0

FORKS: Final = multiprocessing.get_context("forkserver")
# Beside pytest what transformers and MLflow import when they are first used, which takes seconds too.
_IMPORTED: Final = (
    "pytest",
    "transformers.models.bert.modeling_bert",
    "mlflow.artifacts",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)
frozen_model: Final = cache(AdaptedModel)


@final
class MortalRanks:
    """The ranks of one process, which may die between two steps of a window."""

    def __init__(self, world: int, crash: Crash) -> None:
        self._inner, self._crash, self.world = InProcess(world), crash, world

    def mine(self) -> Sequence[int]:
        return self._inner.mine()

    def gather(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        if parts[0].dim() == 1:  # a gradient; forecasts are matrices
            self._crash(MID_TRAIN)
        return self._inner.gather(parts)


@final
class MortalDriver:
    """A driver that may die while its workers learn a window."""

    def __init__(self, inner: Updater, crash: Crash) -> None:
        self._inner, self._crash = inner, crash

    def carry_out(self, order: Order) -> Outcome:
        # The first window of a life also waits for the workers to start: let it pass.
        timer = threading.Timer(0.05, self._crash, [MID_TRAIN])
        if order.members:
            timer.start()
        try:
            return self._inner.carry_out(order)
        finally:
            timer.cancel()

    def close(self) -> None:
        self._inner.close()


def _updater(settings: Settings, cluster: str | None, crash: Crash) -> Updater:
    model, learn = model_spec(settings), settings.learn
    if cluster is None:
        return Local(frozen_model(model), ranks=MortalRanks(learn.world, crash))
    storage = settings.home_folder / "ray"
    spec = RaySpec(workers=learn.workers, threads=learn.threads, storage=storage, address=cluster)
    return MortalDriver(RayUpdater(model, spec), crash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What happens to a life: a signal at the `at`-th time of a step; else it may see the end of the log."""

    step: str = ""
    at: int = 1
    signal: signal.Signals = signal.SIGKILL
    until_end: bool = False
    takeover: bool = False


def _live(said: Mapping[str, Any], cluster: str | None, fate: Fate, pulse: Connection | None) -> None:
    """Run, with a pulse at every step if somebody listens; exit as the command does when fenced."""
    seen = 0

    def crash(reached: str) -> None:
        nonlocal seen
        if pulse is not None:
            pulse.send_bytes(b".")
        seen += reached == fate.step
        if reached == fate.step and seen == fate.at:
            os.kill(os.getpid(), fate.signal)

    settings = load(overrides=said)
    with closing(_updater(settings, cluster, crash)) as updater:
        try:
            execute(
                settings,
                until_end=fate.until_end,
                takeover=fate.takeover,
                console=Silent(),
                crash=crash,
                updater=updater,
            )
        except Fenced:
            sys.exit(ExitCode.FENCED)


@final
@dataclass(frozen=True, slots=True)
class Lives:
    """One life after the other with the same settings; `cluster` is the address of a Ray that outlives them.

    The dead are found dead: nothing is taken over unless that is said.
    """

    said: Mapping[str, Any]
    cluster: str | None = None

    def dies_at(self, step: str, at: int) -> None:
        """Live until the `at`-th time of a step."""
        self._over(self._begun(Fate(step=step, at=at)), -signal.SIGKILL)

    def is_killed(self, pulses: int, then_s: float) -> None:
        """Live for so many steps, or until nothing happens any more, and a little longer."""
        pulse, pulsing = FORKS.Pipe(duplex=False)
        process = self._begun(Fate(), pulsing)
        pulsing.close()
        with pulse:
            while pulses > 0 and pulse.poll(SILENCE_S):
                pulse.recv_bytes()
                pulses -= 1
            process.join(then_s)
            process.kill()
            self._over(process, -signal.SIGKILL)

    @contextmanager
    def frozen_at(self, step: str, at: int) -> Iterator[None]:
        """Have a life stand still at a step for a while; thawed, it must find that it was followed."""
        process = self._begun(Fate(step=step, at=at, signal=signal.SIGSTOP))
        while _state(process) != "T":
            process.join(0.02)
        try:
            yield
        except BaseException:
            process.kill()
            raise
        os.kill(process.ident or 0, signal.SIGCONT)
        self._over(process, ExitCode.FENCED)

    def ends(self, *, takeover: bool = False) -> None:
        """Live to the end of the log."""
        self._over(self._begun(Fate(until_end=True, takeover=takeover)), ExitCode.OK)

    def _begun(self, fate: Fate, pulse: Connection | None = None) -> ForkServerProcess:
        process = FORKS.Process(target=_live, args=(self.said, self.cluster, fate, pulse))
        process.start()
        return process

    def _over(self, process: ForkServerProcess, code: int) -> None:
        process.join(LONGEST_S)
        found = process.exitcode
        if found is None:  # it hangs
            process.kill()
            process.join()
        process.close()
        assert found == code


def _state(process: ForkServerProcess) -> str:
    """Return a process's state as the kernel writes it; T is stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def start_fork_server() -> None:
    """Have the fork server import and load everything, under the environment as it is now."""
    FORKS.set_forkserver_preload([*_IMPORTED, "tests.app.cradle"])
    forkserver.ensure_running()
