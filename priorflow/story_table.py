"""The end of a run on a terminal: a table of windows, a table of methods."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from priorflow.report_words import figure, points, share
from priorflow.story import MethodRow, Story, WindowRow


def window_table(story: Story) -> Table:
    """Return a row for each window; scores are from before it was learned."""
    table = Table(title=f"chain {story.chain}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("window", "mails", "accuracy", "NLL", "ECE", "KL nats", "beta"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("version", justify="right", no_wrap=True)
    for row in story.windows:
        table.add_row(
            str(row.index),
            f"{row.mails:,}",
            share(row.accuracy),
            figure(row.nll, 3),
            figure(row.ece, 3),
            f"{row.kl_nats:,.1f}",
            f"{row.beta:g}",
            _drift(row),
            "waiting" if row.mlflow_version is None else str(row.mlflow_version),
        )
    return table


def method_table(story: Story) -> Table:
    """Return a row for each method on the same windows."""
    table = Table(
        title="on the same windows",
        title_justify="left",
        caption="within: ECE of a window, their mean; accuracy at the end, forgetting: of learned mails",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    for name in ("accuracy", "NLL", "ECE", "within", "at the end", "forgetting"):
        table.add_column(name, justify="right", no_wrap=True)
    for method, row in story.methods.items():
        table.add_row(*_method(method, row), style="bold" if method == story.ours else None)
    return table


def _method(name: str, row: MethodRow) -> tuple[str, ...]:
    return (
        name,
        share(row.prequential_accuracy),
        figure(row.prequential_nll, 3),
        figure(row.prequential_ece, 3),
        figure(row.prequential_ece_by_window, 3),
        share(row.final_accuracy),
        points(row.forgetting),
    )


def _drift(row: WindowRow) -> Text:
    if row.kind == "quarantined":
        return Text("quarantined", style="bold red")
    return Text("drift", style="bold red") if row.drift else Text("")
