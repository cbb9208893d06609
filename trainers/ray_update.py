"""Orders carried out by Ray Train workers. The only file that knows ray.

One `TorchTrainer.fit()` lives as long as the run: a fit per window would cost seconds of start-up each.
Its workers pull orders from a feed (`trainers.feed`) that holds exactly one (the next order needs this one's
posterior), and rank 0 answers with plain tensors. Ray's checkpoints are not used: `report` returning is no
promise that anything is kept, and the ledger is the only authority.

A worker that dies is started again by Ray and pulls the same order: an order is a pure function of its
content, so the answer is the same bits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import ray
import torch
import torch.distributed as dist
from ray import cloudpickle
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer
from torch import Tensor

from posterior import panel
from posterior.family import NotFinite
from trainers.feed import Feed, work
from trainers.model import AdaptedModel, ModelSpec
from trainers.window import Local, Order, Outcome

_packed: Callable[[object], bytes] = cloudpickle.dumps
_unpacked: Callable[[bytes], Any] = cloudpickle.loads
_LOOK_S = 2.0  # how often a waiting driver looks whether the fit has ended


class WorkersLost(RuntimeError):
    """The Ray Train run ended although orders were still to come; Ray's own error is the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySpec:
    """How many workers, how many threads each, and where Ray may write."""

    workers: int
    threads: int
    storage: Path
    address: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Collective:
    """The ranks of a torch process group; tensors come back in rank order."""

    rank: int
    world: int

    def mine(self) -> Sequence[int]:
        """Return this process's one shard."""
        return (self.rank,)

    def gather(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return every rank's tensor."""
        if self.world == 1:
            return parts
        everyone = [torch.empty_like(parts[0]) for _ in range(self.world)]
        dist.all_gather(everyone, parts[0].contiguous())
        return everyone


def carry_out_orders(config: dict[str, Any]) -> None:
    """Carry out orders until there are no more. Runs in every worker."""
    torch.set_num_threads(config["threads"])
    context = get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    local = Local(AdaptedModel(_unpacked(config["model"])), ranks=Collective(rank, world))
    feed, step = config["feed"], -1
    ray.get(feed.hello.remote(rank, os.getpid()))
    while True:
        step, order = ray.get(feed.take.remote(step))
        if order is None:
            return
        try:
            answer: bytes | str = _packed(local.carry_out(_unpacked(order)))
        except NotFinite as bad:  # the same on every rank: gradients are gathered before they are judged
            answer = str(bad)
        if rank == 0:
            ray.get(feed.answer.remote(step, answer))


@final
class RayUpdater:
    """Drives the workers from the loop's side."""

    def __init__(self, model: ModelSpec, spec: RaySpec) -> None:
        """Start Ray if it is not up, the feed, and the fit in a thread."""
        _initialise(spec)
        self._feed: Any = ray.remote(num_cpus=0)(Feed).remote()
        self._ended: Future[None] = Future()
        trainer = TorchTrainer(
            work,
            train_loop_config={
                "feed": self._feed,
                "model": _packed(model),
                "threads": spec.threads,
            },
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(
                num_workers=spec.workers, resources_per_worker={"CPU": spec.threads}
            ),
            run_config=RunConfig(
                storage_path=str(spec.storage.resolve()),
                name=f"run-{os.getpid()}-{id(self):x}",
                failure_config=FailureConfig(max_failures=-1),
            ),
        )
        self._thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self._thread.start()

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except (Exception, SystemExit) as cause:  # noqa: BLE001 - handed to whoever waits for an answer
            self._ended.set_exception(cause)
        else:
            self._ended.set_result(None)

    def worker_pid(self, rank: int = 0) -> int:
        """Return the process id of a worker that has started."""
        pids: dict[int, int] = ray.get(self._feed.pids.remote())
        return pids[rank]

    def carry_out(self, order: Order) -> Outcome:
        """Offer the order and wait; raises NotFinite as the worker did, or WorkersLost.

        OtherPanel before anything is offered: a worker that raises it would be started again for ever.
        """
        panel.restore(order.parent)
        step = ray.get(self._feed.put.remote(_packed(order)))
        pending = self._feed.result.remote(step)
        while True:
            ready, _ = ray.wait([pending], timeout=_LOOK_S)
            if ready:
                answer: bytes | str = ray.get(pending)
                if isinstance(answer, str):
                    raise NotFinite(answer)
                outcome: Outcome = _unpacked(answer)
                return outcome
            if self._ended.done():
                msg = f"the Ray Train run ended before window {order.window} was answered"
                raise WorkersLost(msg) from self._ended.exception()

    def close(self) -> None:
        """Let the workers finish, then leave Ray."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._feed.stop.remote(), timeout=10)
        self._thread.join(timeout=30)
        ray.shutdown()


def _initialise(spec: RaySpec) -> None:
    if ray.is_initialized():
        return
    spec.storage.mkdir(parents=True, exist_ok=True)
    logging.getLogger("ray").setLevel(logging.WARNING)
    # Ray makes its workers nice, so that they yield to everything else on the host; learning is the work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    own: dict[str, Any] = {"num_cpus": spec.workers * spec.threads, "include_dashboard": False}
    ray.init(
        address=spec.address,
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(spec.threads)}},
        **({} if spec.address else own),
    )
