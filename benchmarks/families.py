"""Every family as a user runs it: `priorflow run --family X` to the end of a stream, and `replay --verify`.

    .venv/bin/python benchmarks/families.py [--quick] [--json] [--only TEXT] [--every 4]

Every fourth of the demo's mails lies on topics of an embedded Kafka and closes windows a fourth of the
demo's; `--every 1` takes all, and four times as long. Each family has a ledger, an MLflow store and a
registered model of its own, and the default settings: its name is all that is said. BoRA, which knows tasks,
also learns VADER's four domains under one question, each record naming its own (`/domain`). Both commands are
processes of their own, one thread each.

Rows are kept under .priorflow/bench-families-EVERY and not done again until the learner's code changes. One
that was interrupted begins anew, so that its seconds are those of a whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from rich.console import Console as RichConsole
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.mails_stream import code_sha256
from benchmarks.result import RESULTS, ROOT, progress
from benchmarks.streams import ASSETS, TASKS_MAPPED, as_cloudevents, as_tasks, broker, produce, rated, topics
from connectors.kafka_client import KafkaClient
from connectors.mails import Mail, fetch_mails, load_mails
from connectors.vader import Rated
from posterior.families import FAMILIES
from posterior.panel import NEW
from priorflow.config import Settings, load
from priorflow.exit_codes import ExitCode
from priorflow.opening import MLFLOW, reading
from priorflow.replay import parts_again
from priorflow.run import chain_of, machine, open_source, open_updater, rules_of
from priorflow.scores import Prediction, chance, predictions, prequential
from stream.plan import Member
from trainers.again import members_again

NAME: Final = "families"
ALL: Final = (*FAMILIES, "examples.row_gaussian:RowGaussian")
MAILS, DOMAINS = "mails", "domains"
SIZE: Final = 640  # labels in a window of the demo
EACH: Final = 1_340  # texts of a domain: eight such windows, for 3 % are never labelled
EVERY: Final = 4  # of how many mails one is taken, and of labels in a window
QUICK_SIZE, QUICK_WINDOWS = 24, 2

Said = list[dict[str, Any]]  # what a command told, line by line


@dataclass(frozen=True, slots=True)
class Case:
    """A family on a stream."""

    family: str
    stream: str

    @property
    def name(self) -> str:
        """Name of the chain and of the registered model."""
        return f"{self.stream}-{self.family.rpartition(':')[2]}"


CASES: Final = (*(Case(family, MAILS) for family in ALL), Case("bora", DOMAINS))


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is kept, and how much of it there is."""

    folder: Path
    client: KafkaClient
    every: int
    quick: bool

    @property
    def size(self) -> int:
        """Labels in a window."""
        return QUICK_SIZE if self.quick else SIZE // self.every

    def mails(self) -> Sequence[Mail]:
        """Return the mails that are taken."""
        return load_mails(fetch_mails(ASSETS))[:: self.every]

    def texts(self) -> Sequence[Rated]:
        """Return VADER's texts that are taken, as many from each domain."""
        return rated(EACH // self.every, seed=1)


def configured(place: Place, case: Case) -> Path:
    """Write what is said of a case beside its family: where, which stream, how it is cut."""
    home = place.folder / case.name
    said = {
        "home": str(home),
        "chain": {"name": case.name},
        "mlflow": {"registered_model": case.name},
        "kafka": {"bootstrap": place.client.bootstrap, "topics": topics(case.stream).model_dump()},
        "records": TASKS_MAPPED if case.stream == DOMAINS else {},
        "window": {"kind": "count", "size": place.size},
    }
    home.mkdir(parents=True)
    path = home / "priorflow.yaml"
    path.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    return path


def command(config: Path, *arguments: str) -> tuple[Said, float]:
    """Run a command to its end, telling of each window; return what it said and the seconds it took."""
    line = [sys.executable, "-m", "priorflow", *arguments, "--config", str(config), "--json"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    said, begun = Said(), time.monotonic()
    with (config.parent / f"{arguments[0]}.log").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=one_thread
        )
        assert process.stdout is not None
        for told in map(json.loads, process.stdout):
            said.append(told)
            if told["event"] == "window":
                progress(f"  {told['text']}")
    if process.wait() not in {ExitCode.OK, ExitCode.DIFFERS}:
        msg = f"{' '.join(line)} ended with {process.returncode}; see {errors.name}"
        raise SystemExit(msg)
    return said, time.monotonic() - begun


def foretold(settings: Settings) -> Mapping[int, Sequence[Member]]:
    """Return every learned window from the log again, with what was foretold of its members."""
    with ExitStack() as stack:
        ledger, blobs = stack.enter_context(reading(settings))
        source, updater = open_source(settings), open_updater(settings)
        stack.callback(source.close)
        stack.callback(updater.close)
        parts = parts_again(settings, ledger, blobs, source, updater)
        rules, found = rules_of(settings, chain_of(settings)), {}
        for parent, child in pairwise(ledger.history(settings.chain.name)):
            if child.kind == "learned":
                members = members_again(parts, rules, parent, child)
                assert members is not None, f"window {child.index} is still in the log"
                found[child.index] = members
    return found


def measured(told: Sequence[Prediction], pi_new: float) -> dict[str, Any]:
    """Return the scores of all forecasts, and what they gave to a new class: where one came and elsewhere."""
    total = prequential(told, pi_new=pi_new).total
    assert total is not None, "some window was foretold"
    given: dict[bool, list[float]] = {True: [], False: []}
    for one in told:
        if one.forecast is not None:
            given[one.label not in one.forecast].append(chance(one.forecast, NEW, pi_new=pi_new))
    new, known = given[True], given[False]
    return {
        "foretold": total.count,
        "accuracy": round(total.accuracy, 4),
        "nll": round(total.nll, 4),
        "ece": round(total.ece, 4),
        "new_class": {
            "events": len(new),
            "given_where_new": round(statistics.fmean(new), 4) if new else None,
            "given_elsewhere": round(statistics.fmean(known), 4) if known else None,
        },
    }


def row(place: Place, case: Case) -> dict[str, Any]:
    """Run a case, replay it in a fresh process, and return all that is to be said of it."""
    shutil.rmtree(place.folder / case.name, ignore_errors=True)
    config, before = configured(place, case), os.getloadavg()[0]
    bounded = ["--windows", str(QUICK_WINDOWS)] if place.quick else []
    _, seconds = command(config, "run", "--family", case.family, "--until-end", *bounded)
    again, replay_seconds = command(config, "replay", "--verify", "--set", f"family.name={case.family}")
    after = os.getloadavg()[0]
    verified = [line["same"] for line in again if line["event"] == "verified"]
    settings = load(config, overrides={"family.name": case.family})
    windows = foretold(settings)
    with reading(settings) as (ledger, _):
        rows = [s for s in ledger.history(case.name) if s.kind == "learned"]
        published = sum(ledger.reference(s.sha, MLFLOW) is not None for s in rows)
    return {
        "family": case.family,
        "stream": case.stream,
        "windows": len(windows),
        **measured(predictions(windows), settings.learn.pi_new),
        "kl_nats": round(sum(s.report["kl_nats"] for s in rows)),
        "versions": published,
        "seconds": round(seconds, 1),
        "replay_seconds": round(replay_seconds, 1),
        "verified": [sum(verified), len(verified)],
        "load": [round(before, 2), round(after, 2)],
    }


def kept(place: Place, case: Case) -> dict[str, Any]:
    """Return the row of a case, done now unless this code has done it before."""
    code = code_sha256()
    path = place.folder / "rows" / f"{case.name}.json"
    if path.is_file() and (held := json.loads(path.read_text(encoding="utf-8")))["code"] == code:
        return dict(held)
    progress(f"{case.family} on {case.stream}")
    found = {**row(place, case), "code": code}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".tmp").write_text(json.dumps(found), encoding="utf-8")
    path.with_suffix(".tmp").replace(path)
    shutil.rmtree(place.folder / case.name)
    progress(f"{case.family} on {case.stream}: {found}")
    return found


def as_result(rows: Sequence[Mapping[str, Any]], place: Place) -> dict[str, Any]:
    """Return the result as other tools read it: a row's claim is that all it committed was derived again."""
    return {
        "name": NAME,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "how": {
            "settings": "the defaults; family.name is all that differs between rows of a stream",
            "seeds": 1,
            MAILS: f"{len(place.mails()):,} of the demo's 5,327 mails in nine queues, one in {place.every}; "
            f"windows of {place.size} labels",
            DOMAINS: f"{len(place.texts()):,} of VADER's texts, as many from each of four domains, mixed; "
            f"windows of {place.size} labels",
            "scores": "prequential: of all events foretold before they were learned",
            "new_class": "mean probability given to a class nobody had seen, where one came and elsewhere",
            "seconds": "of the whole command, the start of Python and a new MLflow store included",
            "load": "how many processes ran or waited to, before and after: others' too, so seconds are no "
            "measurement",
        },
        "rows": [claim(one) | dict(one) | {"code": one["code"][:12]} for one in rows],
    }


def claim(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row is to show."""
    same, of = one["verified"]
    return {
        "what": f"{one['family']} on {one['stream']}: committed rows that replay gives again bit for bit",
        "target": of,
        "measured": same,
        "unit": "rows",
        "runs": 1,
        "verdict": "met" if same == of else "short",
    }


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows for a person."""
    out = Table("family", "stream", "windows", "accuracy", "nll", "ece", "new class", "run", "verified")
    for one in rows:
        new = one["new_class"]
        out.add_row(
            one["family"],
            one["stream"],
            str(one["windows"]),
            *(f"{one[k]:.3f}" for k in ("accuracy", "nll", "ece")),
            f"{new['given_where_new']} / {new['given_elsewhere']}",
            f"{one['seconds']:.0f} s",
            f"{one['verified'][0]} of {one['verified'][1]}",
        )
    return out


def main() -> None:
    """Do what is missing; publish."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two windows of a few texts; not written")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument("--only", default="", help="rows whose stream and family hold this text")
    parser.add_argument("--every", type=int, default=EVERY, help="take one mail in so many")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder = ROOT / ".priorflow" / f"bench-families-{'quick' if asked.quick else asked.every}"
    folder.mkdir(parents=True, exist_ok=True)
    with broker(folder) as client:
        place = Place(folder, client, asked.every, asked.quick)
        produce(client, as_cloudevents(place.mails(), topics(MAILS)), topics(MAILS))
        produce(client, as_tasks(place.texts(), topics(DOMAINS), seed=1), topics(DOMAINS))
        rows = [kept(place, case) for case in CASES if asked.only in case.name]
    result = as_result(rows, place)
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if not asked.quick and not asked.only:
        (RESULTS / f"{NAME}.json").write_text(text, encoding="utf-8")
    if asked.json:
        print(text, end="")
    else:
        RichConsole().print(table(rows))


if __name__ == "__main__":
    main()
