"""A small chain that has learned, and the folders in which versions of it are published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from connectors.blobs import MemoryBlobs
from connectors.memory_ledger import MemoryLedger
from connectors.mlflow_registry import MANIFEST, POSTERIOR, Dressing
from posterior.snapshot import Chain, Ledger, Snapshot
from posterior.tensors import to_bytes
from priorflow.config import Settings
from priorflow.learning import family_spec, learn_spec, learning_settings, model_spec
from priorflow.serving.version import answer_spec
from stream.plan import canonical_json, sha256_json
from tests.app.streams import WORDS
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, Writer, learned, progress, root
from trainers.abstention import CONFIDENCES, Tally
from trainers.activations import Activations
from trainers.answer import Answerer, answerer_of
from trainers.model import AdaptedModel
from trainers.window import Local, Order

TEXTS = ("win cheap cash now", "the kernel module will not boot", "")


@dataclass(frozen=True)
class Published:
    """A chain, its head, and the head's posterior."""

    settings: Settings
    ledger: Ledger
    head: Snapshot
    posterior: bytes

    def folder(self, at: Path, dressing: Dressing) -> Path:
        """Write the head's version as the registry would lay it out."""
        at.mkdir()
        manifest = canonical_json(self.head.manifest())
        for name, data in {**dressing(self.head), POSTERIOR: self.posterior, MANIFEST: manifest}.items():
            (at / name).write_bytes(data)
        return at

    def answerer(self) -> Answerer:
        """Return who answers from the head at home."""
        return answerer(self.settings, self.head, self.posterior)


def answerer(settings: Settings, snapshot: Snapshot, posterior: bytes) -> Answerer:
    """Return who answers from a snapshot where its settings are known."""
    model = AdaptedModel(model_spec(settings))
    return answerer_of(
        model,
        Activations(model),
        answer_spec(settings),
        posterior,
        labels=snapshot.labels,
        window=snapshot.index,
    )


def _tensors(settings: Settings, labels: tuple[str, ...]) -> bytes:
    outcome = Local(AdaptedModel(model_spec(settings))).carry_out(
        Order(
            window=0,
            family=family_spec(settings),
            learn=learn_spec(settings),
            chain_seed=settings.chain.seed,
            seed=3,
            parent={},
            labels_before=(),
            labels=labels,
            arrivals=(),
            members=tuple((f"{WORDS[labels[i % 2]]} {i}", labels[i % 2]) for i in range(16)),
        )
    )
    return to_bytes(outcome.tensors)


def published(
    settings: Settings, *told: Tally, labels: tuple[str, ...] = tuple(sorted(WORDS)), idle: int = 0
) -> Published:
    """Learn one window for real; then come as many windows as there are tallies, with its tensors.

    Before each are `idle` rows in which nothing but positions moved.
    """
    blobs = MemoryBlobs()
    ledger = MemoryLedger(blobs)
    said = learning_settings(settings)
    ledger.create(Chain(name="main", seed=settings.chain.seed, settings=said))
    fence = ledger.acquire("main", owner=OWNER, ttl_s=60)
    first = replace(root(blobs), settings=sha256_json(said))
    ledger.commit(fence, first, CIRCUMSTANCE)
    writer = Writer(ledger, blobs, fence, first)
    posterior = _tensors(settings, labels)
    for tally in told or ([],):
        for _ in range(idle):
            writer.commit(progress(blobs, writer.head))
        row = learned(blobs, writer.head, writer.begin())
        report: dict[str, Any] = {CONFIDENCES: [[*step] for step in tally]}
        writer.commit(replace(row, posterior=blobs.put(posterior), labels=labels, report=report))
    return Published(settings, ledger, writer.head, posterior)
