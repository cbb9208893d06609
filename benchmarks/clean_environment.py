"""A version where nothing is installed but what it asks for, beside what the server says.

    .venv/bin/python benchmarks/clean_environment.py [--quick] [--json]

A short chain of the demo's mails is learned with the default settings, published and promoted. Then a virtual
environment is made, and filled from the version's own `requirements.txt` as MLflow holds it, and from nothing
else; the line of priorflow itself, which no index need have, is the wheel of this checkout. A process there
that knows MLflow's address alone loads `models:/priorflow@champion`. Each of its answers is held against that
of `priorflow serve` over HTTP, number by number and to the last bit. It downloads gigabytes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, only its folder is known

from benchmarks.intervals import Estimate
from benchmarks.result import ROOT, Result, Row, arguments, progress, publish
from benchmarks.serving import command, serving
from benchmarks.streams import as_cloudevents, fresh_folder, mixed, topics
from connectors.archive import ArchiveWriter
from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from connectors.mlflow_files import read_files
from connectors.mlflow_store import QUIET
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.run import execute
from stream.record import Position, RawRecord

NAME: Final = "clean_environment"
MODEL: Final = "models:/priorflow@champion"
REQUIREMENTS: Final = "requirements.txt"
SIZE, WINDOWS = 100, 3
TEXTS, QUICK_TEXTS = 60, 6
LOAD: Final = """
import json, sys, time
import mlflow, priorflow

begun = time.monotonic()
model = mlflow.pyfunc.load_model(sys.argv[1])
loaded = time.monotonic() - begun
rows = model.predict(json.load(sys.stdin)).to_dict("records")
print(json.dumps({"rows": rows, "seconds": loaded, "priorflow": priorflow.__file__}))
"""
Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An environment, and what it took."""

    python: Path
    asked: tuple[str, ...]  # the version's requirements
    found: int  # distributions
    megabytes: int
    seconds: float

    @property
    def folder(self) -> Path:
        """Return where all of it lies."""
        return self.python.parents[1]


def learned(folder: Path) -> Settings:
    """Learn a short chain, publish its versions and promote the last."""
    names = topics(NAME)
    writer = ArchiveWriter(folder / "stream")
    for (topic, partition), records in as_cloudevents(mixed(SIZE * (WINDOWS + 2), seed=1), names).items():
        writer.add(
            [
                RawRecord(Position(topic, partition, offset), time_ms, key, value, tuple(headers))
                for offset, (key, value, headers, time_ms) in enumerate(records)
            ]
        )
    writer.flush()
    said = {
        "home": str(folder / "home"),
        "source": f"archive:{folder / 'stream'}",
        "window.kind": "count",
        "window.size": SIZE,
        "gate.enabled": False,
        **{f"kafka.topics.{kind}": getattr(names, kind) for kind in ("events", "labels")},
    }
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")
    settings = load(None, overrides=said)
    assert execute(settings, until_end=True, max_windows=WINDOWS, console=Silent()).published
    with closing(open_ledger(settings.ledger_url, open_blobs(settings.blobs_url))) as ledger:
        last = ledger.history("main")[-1].sha
    subprocess.run(
        command(folder, "promote", last, "--force", "--reason", "a benchmark"),
        check=True,
        capture_output=True,
    )
    return settings


def installed(folder: Path, requirements: Sequence[str]) -> Installed:
    """Make an environment of these requirements and nothing else."""
    uv, env = str(Path(sys.executable).with_name("uv")), {**os.environ, **index()}
    subprocess.run(
        [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)], check=True, env=env
    )
    (wheel,) = folder.glob("priorflow-*.whl")
    lines = [str(wheel) if line.startswith("priorflow==") else line for line in requirements]
    wanted = folder / REQUIREMENTS
    wanted.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    place, begun = folder / "environment", time.monotonic()
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(place)], check=True, env=env)
    python = place / "bin" / "python"
    filled = [uv, "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*filled, "--requirement", str(wanted)], check=True, env=env)
    seconds = time.monotonic() - begun
    files = [path.lstat() for path in place.rglob("*")]
    return Installed(
        python=python,
        asked=tuple(requirements),
        found=len(list(place.rglob("*.dist-info"))),
        megabytes=sum(file.st_size for file in files) >> 20,
        seconds=seconds,
    )


def index() -> dict[str, str]:
    """Return where uv, which does not read pip's settings, finds packages: where pip does."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    told = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
    mirror = told or os.environ.get("PIP_INDEX_URL", "")
    return {"UV_DEFAULT_INDEX": mirror} if mirror and "UV_DEFAULT_INDEX" not in os.environ else {}


def elsewhere(settings: Settings, place: Installed, texts: Sequence[str]) -> tuple[list[Answer], float]:
    """Ask the version in that environment; return its answers and the seconds that loading took."""
    environment = {
        "HOME": str(place.folder),
        "PATH": os.pathsep.join([str(place.python.parent), os.defpath]),
        "OMP_NUM_THREADS": str(settings.learn.threads),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(
        [str(place.python), "-I", "-c", LOAD, MODEL],
        input=json.dumps([{"text": text, "id": f"t{i}"} for i, text in enumerate(texts)]),
        env=environment,
        cwd=place.folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert Path(said["priorflow"]).is_relative_to(place.folder), (
        f"{said['priorflow']} is not what was installed"
    )
    return said["rows"], said["seconds"]


def served(folder: Path, texts: Sequence[str]) -> list[Answer]:
    """Ask the server, one text a request, so that a busy machine answers each in time."""
    with serving(folder) as address:
        return [_served(address, {"text": text, "id": f"t{i}"}) for i, text in enumerate(texts)]


def _served(address: str, event: Mapping[str, str]) -> Answer:
    body, kind = json.dumps(event).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/predict", body, kind)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return as_row(json.load(answer))


def as_row(answer: Answer) -> Answer:
    """Return an answer of the server's as MLflow's table has it."""
    same = ("label", "probabilities", "novelty", "abstain", "snapshot", "version", "prediction_id")
    low, high = answer["interval"]
    sure = {"probability": answer["probabilities"][answer["label"]], "low": low, "high": high}
    return {**{name: answer[name] for name in same}, **sure, **answer["uncertainty"]}


def differing(ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[str]:
    """Name the answers that are not the same in every column, with those columns."""
    out = []
    for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        columns = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
        out += [f"{at}: {', '.join(columns)}"] if columns else []
    return out


def main() -> None:
    """Check and publish."""
    asked = arguments(__doc__)
    folder = fresh_folder(NAME)
    progress(f"learning a chain of {WINDOWS} windows")
    settings = learned(folder)
    progress("installing what the version asks for, and nothing else")
    os.environ |= {**QUIET, "MLFLOW_TRACKING_URI": settings.tracking_uri}  # by which it looks up aliases
    held = read_files([REQUIREMENTS], MODEL, tracking_uri=settings.tracking_uri)[REQUIREMENTS]
    place = installed(folder, held.decode().splitlines())
    texts = [mail.text for mail in mixed(QUICK_TEXTS if asked.quick else TEXTS, seed=2)]
    progress("asking there, and asking the server")
    theirs, seconds = elsewhere(settings, place, texts)
    shutil.rmtree(place.folder)
    differ = differing(served(folder, texts), theirs)
    publish(result(settings, place, differ, len(texts), seconds), asked)


def result(settings: Settings, place: Installed, differ: Sequence[str], count: int, seconds: float) -> Result:
    """Return what was found."""
    measured = Estimate(len(differ), len(differ), len(differ))
    what = "answers that are not the server's in every number, to the last bit"
    row = Row(what=what, bound="at most", target=0, measured=measured, unit="answers", runs=count)
    how = {
        "requirements": place.asked,
        "priorflow": "the wheel of this checkout",
        "installed distributions": place.found,
        "installed MB": place.megabytes,
        "installing, s": round(place.seconds, 1),
        "loading, s": round(seconds, 1),
        "differing": list(differ[:5]),
        "texts": f"mails that were not in the stream; {settings.learn.draws} draws each, with panel",
    }
    return Result(name=NAME, rows=[row], how=how)


if __name__ == "__main__":
    main()
