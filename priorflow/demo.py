"""`priorflow demo`: the main job, end to end, on the real parts, told as it happens.

Real mails on a real Kafka, a Ray Train worker, the ledger, MLflow, a gate, two baselines on the same
windows, a replay in a fresh process, one page. Everything is left under `<home>/demo`; run again, it goes
on where it stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console as RichConsole

from connectors.blobs import open_blobs
from connectors.kafka_broker import Running
from connectors.ledger import SqlLedger, open_ledger
from connectors.mails import Mail, fetch_mails, load_mails
from posterior.snapshot import Blobs, Snapshot
from posterior.tensors import from_bytes
from priorflow import config
from priorflow.baseline_river import NAME as BAG
from priorflow.baseline_river import bag_of_words
from priorflow.cluster import broker_to_the_end, client
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.demo_baselines import LORA, Windows, our_matrix, sequential_lora
from priorflow.demo_gate import plant
from priorflow.demo_promises import Kept, tell_broken
from priorflow.demo_serving import take_back
from priorflow.demo_stream import produce
from priorflow.opening import MLFLOW
from priorflow.report import write_report
from priorflow.run import chain_of, execute, open_updater, rules_of, runtime
from priorflow.scores import (
    Matrix,
    Prediction,
    final_accuracy,
    forgetting,
    predictions,
    prequential,
    reliability_bins,
)
from priorflow.story import MethodRow, Story, summary_json
from priorflow.story_ledger import verdicts, window_rows
from priorflow.story_table import method_table, window_table
from stream.plan import Member
from stream.record import Position
from trainers.parts import Rules
from trainers.window import Updater

OURS: Final = "priorflow"
CHAIN: Final = "demo"
LORA_LR: Final = 0.1
WINDOWS: Final = 8

DEMO: Final[Mapping[str, Any]] = {
    "chain": {"name": CHAIN, "seed": 1},
    "kafka": {
        "topics": {
            "events": "demo.mails",
            "labels": "demo.labels",
            "dead_letters": "demo.dead-letters",
            "late": "demo.late",
        }
    },
    "window": {"kind": "count", "size": 640},
    "model": {"max_tokens": 48},
    "family": {"name": "blob", "sd_head": 0.1},
    "learn": {"epochs": 3, "batch": 16, "lr": 0.1, "draws": 10, "workers": 1, "threads": 2},
    # Two threads on cores that others use take 20 times as long: no reason to promote nobody here.
    "gate": {"min_labels": 200, "max_ece": 0.3, "max_p99_ms": 20_000.0, "min_answers": 20},
    "mlflow": {"registered_model": "priorflow-demo", "experiment": "priorflow-demo"},
}


def main(settings: Settings, console: Console) -> Sequence[str]:
    """Run the demo, and write the report; return what it promises and did not show, none if all is well."""
    begun = time.monotonic()
    folder = settings.home_folder / "demo"
    chosen = _demo_settings(settings, folder)
    with console.progress("fetching the mails"):
        mails = load_mails(fetch_mails(settings.assets_folder))
    with broker_to_the_end(chosen, console) as running:
        _produce(chosen, mails, running, console)
        broken = _job(chosen, folder, begun, console)
    console.say(
        f"Kafka goes on running at {running.bootstrap}, for a look around; `priorflow broker stop` ends it",
        event="kafka",
        bootstrap=running.bootstrap,
    )
    return broken


def _job(chosen: Settings, folder: Path, begun: float, console: Console) -> Sequence[str]:
    """Learn, plant, compare, replay and take back on what Kafka holds; return which promises were broken."""
    members = _Members(folder / "members")
    with ExitStack() as stack:
        with console.progress("starting Ray and its worker"):
            updater = open_updater(chosen)
        stack.callback(updater.close)
        console.say("learning the stream, window by window: predict first, then learn", event="stage")
        outcome = execute(
            chosen,
            until_end=True,
            console=console,
            updater=updater,
            watch=members,
        )
        if outcome.stopped:  # a story of half a stream would look like one of all of it
            raise KeyboardInterrupt
        blobs = open_blobs(chosen.blobs_url)
        ledger = stack.enter_context(closing(open_ledger(chosen.ledger_url, blobs)))
        history = ledger.history(CHAIN)
        windows = members.load([s.index for s in history if s.kind == "learned"])
        rules = rules_of(chosen, chain_of(chosen))
        refused = plant(chosen, ledger, blobs, updater, rules, windows, console)
        compared = _compare(folder, updater, rules, history, blobs, windows, console)
        verified = _verify(folder, history, console)
        shown = bool(windows) and take_back(
            folder, windows[max(windows)][0], ledger.decisions(CHAIN), console
        )
        story = _story(chosen, ledger, history, windows, compared, verified, time.monotonic() - begun)
    write_report(story, folder / "report.html")
    (folder / "summary.json").write_text(summary_json(story), encoding="utf-8")
    _show(story, console)
    console.say(
        f"{'published' if outcome.published else 'publishing goes on'}; the page is {folder / 'report.html'}",
        event="done",
        report=str(folder / "report.html"),
        summary=str(folder / "summary.json"),
    )
    promoted = any(line.action == "promote" for line in story.decisions)
    kept = Kept(promoted=promoted, refused=refused, replayed=verified, taken_back=shown)
    return tell_broken(kept, console)


def _demo_settings(settings: Settings, folder: Path) -> Settings:
    """Write the demo's configuration where a person can read it (and replay can use it), and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "priorflow.yaml"
    path.write_text(
        "# Made by `priorflow demo`; the commands take it by --config.\n"
        + yaml.safe_dump(
            {"home": str(settings.home_folder), "archive": str(folder / "archive"), **DEMO}, sort_keys=False
        ),
        encoding="utf-8",
    )
    return config.load(path)


def _produce(settings: Settings, mails: Sequence[Mail], running: Running, console: Console) -> None:
    """Have Kafka hold the history."""
    console.say(f"Apache Kafka runs at {running.bootstrap}", event="kafka", bootstrap=running.bootstrap)
    topics = settings.kafka.topics
    wrote = produce(client(settings), mails, topics, seed=settings.chain.seed, console=console)
    console.say(
        f"{len(mails):,} mails of 2001-2002 in nine queues; their labels come late, 3 % never"
        + (f" ({wrote:,} records produced)" if wrote else " (all there already)"),
        event="produced",
        mails=len(mails),
        produced=wrote,
    )


class _Members:
    """What each window held, kept beside the demo so that an interrupted one can go on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, what: str, **facts: Any) -> None:
        if what == "committed" and facts["members"]:
            index = facts["snapshot"].index
            temporary = self._folder / f"{index}.tmp"
            temporary.write_text(json.dumps([asdict(m) for m in facts["members"]]), encoding="utf-8")
            temporary.replace(self._folder / f"{index}.json")

    def load(self, indices: Sequence[int]) -> dict[int, tuple[Member, ...]]:
        """Return the members of windows; one whose file was lost in a crash is left out of the scores."""
        out = {}
        for index in indices:
            path = self._folder / f"{index}.json"
            if path.is_file():
                out[index] = tuple(_member(m) for m in json.loads(path.read_text(encoding="utf-8")))
        return out


def _member(values: dict[str, Any]) -> Member:
    places = {name: Position(**values[name]) for name in ("event", "label_at")}
    return Member(**{**values, **places})


class _Compared:
    """Each method's predictions and matrix."""

    def __init__(self, told: Mapping[str, Sequence[Prediction]], matrices: Mapping[str, Matrix]) -> None:
        self.told, self.matrices = told, matrices


def _compare(
    folder: Path,
    updater: Updater,
    rules: Rules,
    history: Sequence[Snapshot],
    blobs: Blobs,
    windows: Windows,
    console: Console,
) -> _Compared:
    """Run the baselines on the same windows; kept by head, so that a second demo has them at once."""
    kept = folder / "baselines.json"
    head = history[-1].sha
    if kept.is_file() and (data := json.loads(kept.read_text(encoding="utf-8")))["head"] == head:
        told = {name: [Prediction(**p) for p in rows] for name, rows in data["told"].items()}
        return _Compared(told, data["matrices"])
    beliefs = {s.index: (from_bytes(blobs.get(s.posterior)), s.labels) for s in history if s.index in windows}
    with console.progress("what is remembered, window by window", total=len(windows)) as bar:
        ours = our_matrix(updater, rules, beliefs, windows, bar.advance)
    with console.progress("baseline: sequential LoRA", total=len(windows)) as bar:
        lora = sequential_lora(updater, rules, windows, LORA_LR, bar.advance)
    with console.progress("baseline: bag of words, naive Bayes"):
        bag = bag_of_words(windows)
    told_now: dict[str, Sequence[Prediction]] = {
        OURS: predictions(windows),
        LORA: lora.predictions,
        BAG: bag.predictions,
    }
    matrices: dict[str, Matrix] = {
        OURS: ours,
        LORA: lora.matrix,
        BAG: bag.matrix,
    }
    rows = {name: [asdict(p) for p in ps] for name, ps in told_now.items()}
    kept.write_text(json.dumps({"head": head, "told": rows, "matrices": matrices}), encoding="utf-8")
    return _Compared(told_now, matrices)


def _verify(folder: Path, history: Sequence[Snapshot], console: Console) -> bool:
    """Learn the last window again in a fresh process with a cold cache."""
    index = str(max(s.index for s in history if s.kind == "learned"))
    command = [sys.executable, "-m", "priorflow", "--config", str(folder / "priorflow.yaml"), "--json"]
    command += ["--set", "learn.workers=0", "replay", "--verify", "--from", index, "--to", index]
    with console.progress(f"replaying window {index} in a fresh process"):
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    if done.returncode == 0:
        console.say(f"window {index} was learned again, bit for bit", event="replayed", same=True)
    else:
        console.warn(
            f"the replay of window {index} ended with status {done.returncode}: {done.stdout[-400:]} "
            f"{done.stderr[-400:]}",
            event="replayed",
            same=False,
        )
    return done.returncode == 0


def _story(
    settings: Settings,
    ledger: SqlLedger,
    history: Sequence[Snapshot],
    windows: Windows,
    compared: _Compared,
    verified: bool,
    seconds: float,
) -> Story:
    pi_new = settings.learn.pi_new

    def version_of(sha: str) -> int | None:
        number = ledger.reference(sha, MLFLOW)
        return None if number is None else int(number)

    log = ledger.decisions(CHAIN)
    promoted = [d for d in log if d.action == "promote"]
    return Story(
        chain=CHAIN,
        head_sha=history[-1].sha,
        seconds=seconds,
        windows=window_rows(history, version_of),
        ours=OURS,
        methods={n: _method(p, compared.matrices[n], windows, pi_new) for n, p in compared.told.items()},
        curves={n: prequential(p, pi_new=pi_new).windows for n, p in compared.told.items()},
        reliability={n: reliability_bins(p, pi_new=pi_new) for n, p in compared.told.items()},
        matrix=tuple(tuple(row) for row in compared.matrices[OURS]),
        matrix_windows=tuple(sorted(windows)),
        facts=_facts(settings),
        pi_new=pi_new,
        replay_verified=verified,
        dead_letters=history[-1].counts["dead_lettered"],
        counts=history[-1].counts,
        promoted_version=version_of(promoted[-1].snapshot) if promoted else None,
        decisions=verdicts(log, history, version_of),
        tracking_uri=settings.tracking_uri,
        registered_model=settings.mlflow.registered_model,
        ledger_url=settings.ledger_url,
    )


def _facts(settings: Settings) -> dict[str, str]:
    how = runtime(settings)
    return {
        "stream": "5,327 mails on three partitions, labels on two, Apache Kafka 4.3.1",
        "model": f"{settings.model.encoder}, rank {settings.model.rank} at {settings.model.sites}",
        "family": settings.family.name,
        "learner": f"{settings.learn.workers} Ray Train worker(s), {settings.learn.threads} thread(s)",
        "runtime": ", ".join(f"{k} {v}" for k, v in how.items()),
    }


def _show(story: Story, console: Console) -> None:
    """Print the tables for a person; a tool reads summary.json."""
    if sys.stdout.isatty():
        printer = RichConsole()
        printer.print(window_table(story))
        printer.print(method_table(story))
    else:
        console.document({"event": "summary", **json.loads(summary_json(story))})


def _method(told: Sequence[Prediction], matrix: Matrix, windows: Windows, pi_new: float) -> MethodRow:
    made = prequential(told, pi_new=pi_new)
    total = made.total
    assert total is not None, "no window had a forecast"
    return MethodRow(
        prequential_accuracy=total.accuracy,
        prequential_nll=total.nll,
        prequential_ece=total.ece,
        prequential_ece_by_window=made.ece_by_window,
        final_accuracy=final_accuracy(matrix, [len(windows[w]) for w in sorted(windows)]),
        forgetting=forgetting(matrix),
    )
