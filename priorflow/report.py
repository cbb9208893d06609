"""The report: one file that needs no network, no script and no server to be read."""

from __future__ import annotations

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from priorflow import report_axes as axes
from priorflow import report_curves as curves
from priorflow import report_heat as heat
from priorflow import report_words as words
from priorflow.masking import without_password
from priorflow.story import Story


def report_html(story: Story) -> str:
    """Return the report of a run as one HTML page; the same story gives the same bytes."""
    if not story.windows:
        msg = f"chain {story.chain}: no window has closed yet, so there is nothing to report"
        raise ValueError(msg)
    return (
        pages()
        .get_template("report.html")
        .render(story=story, words=words, figures=_figures(story), places=_places(story))
    )


def pages() -> Environment:
    """Return where pages come from; what came with the stream cannot become markup."""
    made = Environment(
        loader=PackageLoader("priorflow"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": axes.percent, "day": axes.day, "verdict": words.verdict}
    return made


def write_report(story: Story, path: Path) -> None:
    """Write the report beside its place and move it there, so that no half page is ever read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(report_html(story), encoding="utf-8")
    os.replace(fresh, path)


def _figures(story: Story) -> dict[str, str]:
    return {
        "accuracy": curves.curve_chart(story, curves.ACCURACY),
        "nll": curves.curve_chart(story, curves.NLL),
        "ece": curves.curve_chart(story, curves.ECE),
        "reliability": curves.reliability_chart(story),
        "classes": heat.class_chart(story),
        "matrix": heat.matrix_chart(story) if story.matrix else "",
        "movement": curves.movement_chart(story),
        "sites": heat.site_chart(story) if heat.shown_sites(story) else "",
        "accounting": curves.accounting_chart(story.counts),
    }


def _places(story: Story) -> dict[str, str]:
    return {
        "Chain": story.chain,
        "Head": story.head_sha,
        **story.facts,
        "Ledger": without_password(story.ledger_url),
        "MLflow": f"{story.registered_model} in {without_password(story.tracking_uri)}",
    }
