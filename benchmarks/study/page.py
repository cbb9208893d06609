"""How the summary is shown: tables for the page, figures, the file that other tools read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.mails_stream import ROOT
from benchmarks.study.cells import line, number
from benchmarks.study.figures import drawn, figures
from benchmarks.study.methods import LORA, PRIORFLOW
from benchmarks.study.readings import SCALED
from benchmarks.study.seeds import half_width, measured, rows_of
from benchmarks.study.targets import best_scaled, retrained
from priorflow.run import machine

RESULTS: Final = Path(__file__).parent / "results"
SUMMARY: Final = "summary.json"
PAGE: Final = ROOT / "docs" / "evidence.md"
FRONT: Final = ROOT / "README.md"
BEGIN, END = "<!-- written by benchmarks.study -->", "<!-- to here -->"
NLL: Final = "prequential_nll"
NLL_SCALED: Final = f"{NLL}{SCALED}"  # not in a row: the NLL of the method's other reading
COLUMNS: Final = (
    ("learning", "learning_accuracy"),
    ("final", "final_accuracy"),
    ("balanced", "final_accuracy_balanced"),
    ("forgetting", "forgetting"),
    ("preq. accuracy", "prequential_accuracy"),
    ("preq. NLL", NLL),
    ("NLL scaled", NLL_SCALED),
    ("of seen", "prequential_nll_seen"),
    ("preq. ECE", "prequential_ece"),
    ("by mass", "prequential_ece_adaptive"),
    ("AUROC new", "new_class_auroc"),
    ("final ECE", "final_ece"),
    ("among known", "final_ece_known"),
)
SPREAD: Final = ("final_accuracy", NLL, NLL_SCALED)  # shown with an interval over seeds

Values = Mapping[str, Sequence[float]]  # by measure, one of each seed


def results_table(said: Mapping[str, Any], stream: str) -> str:
    """Return a stream's results, means over seeds, as a table of a page without columns that nobody has."""
    names = dict.fromkeys(r["method"] for r in said["rows"] if r["stream"] == stream)
    held = {name: _values(said, stream, name) for name in names if not name.endswith(SCALED)}
    columns = [(head, name) for head, name in COLUMNS if any(name in values for values in held.values())]
    heads = [head for head, _ in columns]
    lines = [line("method", "seeds", *heads, "CPU s", "of the last window", "kB carried")]
    lines.append("|---" * (len(columns) + 5) + "|")
    for method, values in held.items():
        rows = rows_of(said["rows"], stream, method)
        cells = [_cell(values, name) for _, name in columns]
        cpu = statistics.fmean(values["cpu_seconds"]), statistics.fmean(values["last_learn_cpu_seconds"])
        tail = f"{cpu[0]:.0f}", f"{cpu[1]:.1f}", f"{rows[0]['bytes_carried'] / 1000:,.0f}"
        lines.append(line(f"`{method}`", str(len(rows)), *cells, *tail))
    return "\n".join(lines)


def in_short(said: Mapping[str, Any]) -> str:
    """Return the default beside sequential LoRA, retraining and the best scaled rival, a line each stream."""
    accuracies = ("final", "LoRA's", "retraining's")
    costs = ("preq. NLL", "LoRA's", "least of others, scaled")
    heads = (*accuracies, "forgetting", "LoRA's", *costs, "preq. ECE")
    lines = [line("stream", *heads), "|---" * (len(heads) + 1) + "|"]
    for stream in dict.fromkeys(r["stream"] for r in said["rows"] if r["method"] == PRIORFLOW):
        ours, lora = (_values(said, stream, method) for method in (PRIORFLOW, LORA))
        joint = _values(said, stream, retrained(said["rows"], stream))
        rival = best_scaled(said["rows"], stream) if "prequential_nll_seen" in ours else None
        scaled = _values(said, stream, rival) if rival else {}
        named = f"{_cell(scaled, NLL)}, `{rival}`" if rival else "-"
        cells = [_cell(values, "final_accuracy") for values in (ours, lora, joint)]
        cells += [_cell(values, "forgetting") for values in (ours, lora)]
        cells += [_cell(ours, NLL), _cell(lora, NLL), named, _cell(ours, "prequential_ece")]
        lines.append(line(stream, *cells))
    return "\n".join(lines)


def at_a_glance(said: Mapping[str, Any]) -> str:
    """Return what the front page shows: the main streams, the default between fine-tuning and retraining."""
    ends = ("accuracy at the end", "fine-tuned LoRA's", "retraining's")
    heads = (*ends, "forgotten", "LoRA's", "nats an event, foretold", "LoRA's")
    lines = [line("stream", *heads), "|---" * (len(heads) + 1) + "|"]
    for stream in said["main"]:
        ours, lora = (_values(said, stream, method) for method in (PRIORFLOW, LORA))
        joint = _values(said, stream, retrained(said["rows"], stream))
        cells = [_cell(values, "final_accuracy") for values in (ours, lora, joint)]
        cells += [_cell(values, name) for name in ("forgetting", NLL) for values in (ours, lora)]
        lines.append(line(stream, *cells))
    return "\n".join(lines)


def _values(said: Mapping[str, Any], stream: str, method: str) -> Values:
    """Return a method's measures, and what its forecasts cost at temperatures."""
    other = measured(said["rows"], stream, f"{method}{SCALED}")
    more = {NLL_SCALED: other[NLL]} if NLL in other else {}
    return {**measured(said["rows"], stream, method), **more}


def _cell(values: Values, name: str) -> str:
    if name not in values:
        return "-"
    half = half_width(values[name]) if name in SPREAD else None
    return number(statistics.fmean(values[name])) + (f" ± {number(half)}" if half is not None else "")


def targets_table(said: Mapping[str, Any]) -> str:
    """Return the targets with what was measured, as a table of a page."""
    if not said["targets"]:
        return "None can be judged yet: each needs a run of `priorflow`."
    heads = ("stream", "what", "target", "measured", "95 % interval", "over", "verdict")
    lines = [line(*heads), "|---" * len(heads) + "|"]
    for row in said["targets"]:
        interval = " to ".join(map(number, row["interval"])) if row["interval"] else "-"
        goal = f"{row['bound']} {number(row['target'])}"
        over = row.get("over") or "-"
        lines.append(
            line(row["stream"], row["what"], goal, number(row["measured"]), interval, over, row["verdict"])
        )
    return "\n".join(lines)


def part_of_page(said: Mapping[str, Any]) -> str:
    """Return what the page says of the summary, in tables: all of its figures, for its prose has none."""
    streams = dict.fromkeys(row["stream"] for row in said["rows"])
    parts = [f"### {stream}\n\n{results_table(said, stream)}" for stream in streams]
    missing = "\n".join(f"- {one}" for one in said["missing"])
    there = drawn(said)
    shown = [
        f"![{figure.shows}](../benchmarks/study/results/{figure.file})"
        for figure in figures()
        if figure.file in there
    ]
    return "\n\n".join(
        [
            f"Written {said['date']}; summary.json names the code behind each row.",
            f"### In short\n\n{in_short(said)}",
            *shown,
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
    """Print the tables; write summary, figures and page unless it was a quick one."""
    print(part_of_page(said))
    if quick:
        return
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(said, indent=1, allow_nan=False) + "\n"
    (RESULTS / SUMMARY).write_text(text, encoding="utf-8")
    for file, drawing in drawn(said).items():
        (RESULTS / file).write_text(drawing, encoding="utf-8")
    for page, part in ((PAGE, part_of_page(said)), (FRONT, at_a_glance(said))):
        page.write_text(published(page.read_text(encoding="utf-8"), part), encoding="utf-8")


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
