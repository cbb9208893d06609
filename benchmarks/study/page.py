"""How the summary is shown: tables for the page, a figure, the file that other tools read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.mails_stream import ROOT
from benchmarks.papers.chart import Line, Panel, panels
from benchmarks.study.methods import JOINT, LORA, PRIORFLOW
from benchmarks.study.summary import DRAWN
from benchmarks.study.targets import averaged
from priorflow.run import machine

RESULTS: Final = Path(__file__).parent / "results"
SUMMARY: Final = "summary.json"
PAGE: Final = ROOT / "docs" / "evidence.md"
SHOWN: Final = "![Accuracy on held-out texts of all windows so far](../benchmarks/study/results/accuracy.svg)"
BEGIN, END = "<!-- written by benchmarks.study -->", "<!-- to here -->"
COLUMNS: Final = (
    ("learning", "learning_accuracy"),
    ("final", "final_accuracy"),
    ("balanced", "final_accuracy_balanced"),
    ("forgetting", "forgetting"),
    ("preq. accuracy", "prequential_accuracy"),
    ("preq. NLL", "prequential_nll"),
    ("of seen", "prequential_nll_seen"),
    ("preq. ECE", "prequential_ece"),
    ("AUROC new", "new_class_auroc"),
)


def figure(said: Mapping[str, Any]) -> str | None:
    """Draw accuracy over windows on the main streams that have been run; joint training is level."""
    charts = []
    for name in said["main"]:
        held: Mapping[str, Sequence[float]] = said["curves"].get(name, {}).get("accuracy", {})
        if PRIORFLOW in held and LORA in held:
            count = len(held[PRIORFLOW])
            level = [Line(JOINT, list(held[JOINT]) * count)] if JOINT in held else []
            lines = [Line(method, held[method]) for method in DRAWN if method in held]
            labels = [str(w + 1) for w in range(count)]
            charts.append(Panel(f"{name}: accuracy so far, by window", labels, [*lines, *level]))
    return panels(*charts) if charts else None


def results_table(said: Mapping[str, Any], stream: str) -> str:
    """Return a stream's results, means over seeds, as a table of a page."""
    methods = list(dict.fromkeys(r["method"] for r in said["rows"] if r["stream"] == stream))
    lines = [_line("method", "seeds", *(head for head, _ in COLUMNS), "CPU s", "kB carried")]
    lines.append("|---" * (len(COLUMNS) + 4) + "|")
    for method in methods:
        chosen = [r for r in said["rows"] if (r["stream"], r["method"]) == (stream, method)]
        means = averaged(said["rows"], stream, method) or {}
        cells = (_number(means.get(name)) for _, name in COLUMNS)
        kilo = f"{chosen[0]['bytes_carried'] / 1000:,.0f}"
        lines.append(_line(f"`{method}`", str(len(chosen)), *cells, f"{means['cpu_seconds']:.0f}", kilo))
    return "\n".join(lines)


def targets_table(said: Mapping[str, Any]) -> str:
    """Return the targets with what was measured, as a table of a page."""
    if not said["targets"]:
        return "None can be judged yet: each needs a run of `priorflow`."
    lines = [_line("stream", "what", "target", "measured", "95 % interval", "verdict"), "|---" * 6 + "|"]
    for row in said["targets"]:
        interval = " to ".join(map(_number, row["interval"])) if row["interval"] else "-"
        goal = f"{row['bound']} {_number(row['target'])}"
        lines.append(
            _line(row["stream"], row["what"], goal, _number(row["measured"]), interval, row["verdict"])
        )
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def part_of_page(said: Mapping[str, Any]) -> str:
    """Return what the page says of the summary, in tables: all of its figures but those of its prose."""
    streams = dict.fromkeys(row["stream"] for row in said["rows"])
    parts = [f"### {stream}\n\n{results_table(said, stream)}" for stream in streams]
    missing = "\n".join(f"- {one}" for one in said["missing"])
    drawn = [SHOWN] if figure(said) is not None else []
    return "\n\n".join(
        [
            f"Written {said['date']}; summary.json names the code behind each row.",
            *drawn,
            *parts,
            f"### Targets\n\n{targets_table(said)}",
            f"### Not run yet\n\n{missing}",
        ]
    )


def published(page: str, part: str) -> str:
    """Return the page with its written part replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"the page lacks the lines {BEGIN} and {END}, between which the tables belong"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{after}"


def published_before() -> Mapping[str, Any]:
    """Return the summary that was last written; nothing if there is none."""
    path = RESULTS / SUMMARY
    held: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return held


def publish(said: Mapping[str, Any], *, quick: bool) -> None:
    """Print the tables; write summary, figure and page unless it was a quick one."""
    print(part_of_page(said))
    if quick:
        return
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(said, indent=1, allow_nan=False) + "\n"
    (RESULTS / SUMMARY).write_text(text, encoding="utf-8")
    if (drawing := figure(said)) is not None:
        (RESULTS / "accuracy.svg").write_text(drawing, encoding="utf-8")
    PAGE.write_text(published(PAGE.read_text(encoding="utf-8"), part_of_page(said)), encoding="utf-8")


def record(path: Path, *, name: str, how: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write what a question beside the study came to."""
    told = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), "torch": torch.__version__},
        "how": how,
        "rows": rows,
    }
    path.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
