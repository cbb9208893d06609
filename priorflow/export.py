"""Write one set of weights of a snapshot for programs that are not ours.

Base model and family must be the chain's; topics, windows and schedules need not be, for nothing is learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

from connectors.decision_log import champion
from connectors.ledger import SqlLedger
from posterior import panel
from posterior.families import make_family
from posterior.family import ONE_TASK, Draw
from posterior.snapshot import Chain, LedgerError, Snapshot
from posterior.tensors import from_bytes
from priorflow import peft_folder
from priorflow.config import ConfigError, Settings
from priorflow.learning import differences, family_spec, learning_settings, model_spec, parts_of
from priorflow.opening import reading, require_history, require_snapshot
from priorflow.peft_card import CARD, LeftOut, card, left_out, rows_heard
from trainers import peft_form, single
from trainers.answer import NothingLearned
from trainers.model import AdaptedModel
from trainers.peft_form import Origin

_DECIDE: Final = ("model", "family")  # of a chain's settings, what says what its tensors mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which weights: of a snapshot by sha, else by alias; its mean, or draw `draw` from 0; of one task."""

    snapshot: str | None = None
    alias: Literal["champion", "head"] = "champion"
    chain: str | None = None
    draw: int | None = None
    task: str | None = None
    new_task: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What the ledger knows of the snapshot that is wanted."""

    snapshot: Snapshot
    chain: Chain
    posterior: bytes


@final
@dataclass(frozen=True, slots=True)
class Exported:
    """Whose weights were written, and what of the snapshot's answers they are not."""

    origin: Origin
    missing: tuple[LeftOut, ...]


def export_peft(settings: Settings, wanted: Wanted, folder: Path, *, force: bool = False) -> Exported:
    """Write the weights as a PEFT folder and return what was written; on an error nothing is."""
    with reading(settings) as (ledger, blobs):
        snapshot = _chosen(ledger, wanted, wanted.chain or settings.chain.name)
        read = _Read(
            snapshot=snapshot,
            chain=_chain_of(ledger, snapshot),
            posterior=blobs.get(snapshot.posterior),
        )
    _require_meaning(settings, read.chain)
    _require_classes(settings, snapshot)
    peft_form.refuse_other_parts(parts_of(settings))
    made, draw = _weights(settings, read, wanted)
    origin = made.origin
    peft_folder.require_free(folder, origin.name, force=force)  # before the model is loaded, which takes long
    files = peft_form.files_of(AdaptedModel(model_spec(settings)), draw, origin)
    peft_folder.put(folder, {**files, CARD: card(origin, made.missing)})
    return made


def _weights(settings: Settings, read: _Read, wanted: Wanted) -> tuple[Exported, Draw]:
    spec, (beside, own) = family_spec(settings), panel.restore(from_bytes(read.posterior))
    family = make_family(spec.name, spec.options)
    state, seed, window = family.restore(own), read.chain.seed, read.snapshot.index
    whose = single.whose(family, state, named=wanted.task, new=wanted.new_task)
    origin = Origin(
        snapshot=read.snapshot.sha,
        chain=read.chain.name,
        window=window,
        labels=read.snapshot.labels,
        chain_seed=seed,
        draw=wanted.draw,
        draws=int(read.chain.settings["learn"]["draws"]),
        whose=whose,
        panel=beside is not None,
    )
    missing = left_out(
        origin,
        heard=None if beside is None else rows_heard(beside),
        drawn=bool(family.noise(family.open(state, [whose.task or ONE_TASK]))),
    )
    draw = single.drawn(family, state, whose, number=wanted.draw, chain_seed=seed, window=window)
    return Exported(origin, missing), draw


def _chosen(ledger: SqlLedger, wanted: Wanted, chain: str) -> Snapshot:
    """Return the snapshot that is meant; LedgerError says how to name one."""
    if wanted.snapshot is not None:
        return require_snapshot(ledger, wanted.snapshot)
    history = require_history(ledger, chain)
    if not history:
        msg = f"chain {chain} has no snapshot yet"
        raise LedgerError(msg)
    if wanted.alias == "head":  # the row that made its belief: progress rows only move positions
        return [row for row in history if row.kind not in {"progress", "erased", "relabelled"}][-1]
    sha = champion(ledger.decisions(chain))
    if sha is None:
        msg = f"chain {chain}: nobody was promoted yet; --alias head exports the newest snapshot"
        raise LedgerError(msg)
    return require_snapshot(ledger, sha)


def _chain_of(ledger: SqlLedger, snapshot: Snapshot) -> Chain:
    chain = ledger.chain(snapshot.chain)
    assert chain is not None, snapshot.chain
    return chain


def _require_meaning(settings: Settings, chain: Chain) -> None:
    """Raise ConfigError unless base model and family are those of the chain."""
    here = learning_settings(settings)
    ours, theirs = ({name: said.get(name) for name in _DECIDE} for said in (here, chain.settings))
    found = list(differences(ours, theirs))
    if found:
        listed = "\n  ".join(found)
        msg = f"these settings are not those of chain {chain.name!r}:\n  {listed}\nUse its configuration"
        raise ConfigError(msg)


def _require_classes(settings: Settings, snapshot: Snapshot) -> None:
    """Raise NothingLearned where a class was to be learned and none is known."""
    if settings.model.objective != "tokens" and not snapshot.labels:
        msg = f"the snapshot of window {snapshot.index} knows no class yet; export one that has learned"
        raise NothingLearned(msg)
