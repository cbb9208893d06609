"""The report stands alone, says everything, and says it the same way every time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from priorflow import report_words
from priorflow.report import report_html, write_report
from priorflow.report_heat import SHOWN_SITES, shown_sites
from priorflow.story import Story
from tests.app.story_example import example

LOADING = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}
VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Page(HTMLParser):
    """Collects what a page consists of; asserts that its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def story() -> Story:
    return example()


@pytest.fixture(scope="module")
def page(story: Story) -> _Page:
    return _Page(report_html(story))


def test_nothing_is_loaded_from_anywhere(story: Story, page: _Page) -> None:
    assert not {name for name, _ in page.attributes} & LOADING
    assert not set(page.tags) & {"script", "link", "iframe", "object", "embed", "img", "base"}
    text = report_html(story).lower()
    assert "url(" not in text
    assert "@import" not in text
    assert not [value for _, value in page.attributes if "//" in value]
    assert any(value.startswith("default-src 'none';") for _, value in page.attributes)


def test_every_window_is_there_with_its_snapshot(story: Story, page: _Page) -> None:
    anchors = [value for name, value in page.attributes if name == "id"]
    assert anchors == [f"window-{row.index}" for row in story.windows]
    whole = {value for name, value in page.attributes if name == "title"}
    assert {row.snapshot_sha for row in story.windows} <= whole
    for row in story.windows:
        assert row.snapshot_sha[:12] in page.text


def test_every_method_class_and_decision_is_named(story: Story, page: _Page) -> None:
    for name in (*story.methods, *(label for row in story.windows for label in row.classes)):
        assert name in page.text
    for verdict in story.decisions:
        for reason in verdict.reasons:
            assert reason in page.text
    assert page.text.count("Refused version") == 1


def test_accounts_have_the_colours_of_their_names_however_the_ledger_sorts_them(story: Story) -> None:
    """What was learned is never drawn as an alarm."""
    lines = report_words.accounting_lines(dict(sorted(story.counts.items())))
    assert lines[0][0] == "learned"
    assert [name for name, _, _ in lines].index("dead lettered") == 4
    assert lines == report_words.accounting_lines(story.counts)


def test_the_accounting_is_shown_and_added_up(story: Story, page: _Page) -> None:
    assert f"{story.counts['consumed']:,} records were consumed" in page.text
    assert "none is missing" in page.text
    lost = replace(story, counts={**story.counts, "pending": 0})
    assert "This must not be." in report_words.accounting_verdict(lost.counts)


def test_there_is_a_sentence_under_every_figure(page: _Page) -> None:
    assert page.tags.count("figure") == page.tags.count("figcaption") == 8


def test_what_each_window_taught_is_told_by_site_class_and_record(story: Story, page: _Page) -> None:
    for row in story.windows:
        assert row.taught is not None
        for site, nats in row.taught.by_site.items():
            name = site if site == "head" else f"5 {site.rpartition('.')[2]}"
            assert f"{name}, window {row.index}: {nats:,.1f} nats" in page.text
        assert all(f"{place} {before:.2f}" in page.text for place, before, _ in row.taught.moved)
        assert f"{row.taught.worth:,.0f}" in page.text


def test_a_ledger_that_does_not_say_what_was_taught_has_a_report_too(story: Story) -> None:
    older = replace(story, windows=tuple(replace(row, taught=None) for row in story.windows))
    text = _Page(report_html(older)).text
    assert "What each window taught" not in text
    whole = replace(story, windows=(replace(story.windows[0], taught=None), *story.windows[1:]))
    assert "What each window taught" in _Page(report_html(whole)).text


def test_many_sites_are_shown_as_one_and_none_is_lost(story: Story) -> None:
    taught = story.windows[0].taught
    assert taught is not None
    many = {f"encoder.layer.{i}.{k}.dense": float(i) for i in range(12) for k in ("attention", "output")}
    rows = tuple(replace(row, taught=replace(taught, by_site=many)) for row in story.windows)
    shown = shown_sites(replace(story, windows=rows))
    assert len(shown) == SHOWN_SITES
    assert sorted(site for sites in shown.values() for site in sites) == sorted(many)


def test_what_is_kept_is_said_to_be_of_mails_that_were_learned(page: _Page) -> None:
    assert "a sample of the mails that were learned in every earlier one" in page.text


def test_every_drawing_says_what_it_is(page: _Page) -> None:
    drawings = page.tags.count("svg")
    said = sum(name in {"aria-label", "aria-hidden"} for name, _ in page.attributes)
    assert drawings == said


def test_the_same_story_gives_the_same_bytes_in_any_process(story: Story) -> None:
    told = (
        "import sys; from priorflow.report import report_html\n"
        "from tests.app.story_example import example\n"
        "sys.stdout.buffer.write(report_html(example()).encode())"
    )
    other = subprocess.run(
        [sys.executable, "-c", told],
        env={**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
        capture_output=True,
        check=True,
    )
    assert other.stdout.decode() == report_html(story)


def test_names_from_the_stream_cannot_become_markup(story: Story) -> None:
    evil = "<script>alert(1)</script>\"'&"
    row = replace(story.windows[0], classes={evil: 500}, new_classes=(evil,))
    page = _Page(report_html(replace(story, chain=evil, windows=(row, *story.windows[1:]))))
    assert "script" not in page.tags
    assert evil in page.text


def test_passwords_of_addresses_are_not_shown(story: Story) -> None:
    secret = replace(
        story,
        ledger_url="postgresql+psycopg://flow:hunter2@db/ledger",
        tracking_uri="https://flow:hunter2@mlflow",
    )
    text = report_html(secret)
    assert "hunter2" not in text
    assert "db/ledger" in text


@pytest.mark.parametrize("windows", [1, 2, 17, 60])
def test_short_and_long_chains_are_drawn(windows: int) -> None:
    page = _Page(report_html(example(windows, thin=50)))
    assert sum(name == "id" for name, _ in page.attributes) == windows


def test_a_story_without_a_matrix_or_decisions_says_so(story: Story) -> None:
    bare = replace(story, matrix=(), decisions=(), promoted_version=None, replay_verified=False)
    page = _Page(report_html(bare))
    assert page.tags.count("figure") == 7
    assert "Nothing was promoted or refused." in page.text
    assert "not verified" in page.text


def test_a_window_that_was_quarantined_is_marked(story: Story) -> None:
    row = replace(story.windows[3], kind="quarantined")
    rows = (*story.windows[:3], row, *story.windows[4:])
    assert "quarantined" in _Page(report_html(replace(story, windows=rows))).text


def test_windows_that_were_not_measured_are_left_out_of_the_matrix(story: Story) -> None:
    kept = tuple(row.index for row in story.windows if row.index != 3)
    matrix = tuple((0.5,) * (i + 1) for i in range(len(kept)))
    page = _Page(report_html(replace(story, matrix=matrix, matrix_windows=kept)))
    assert "window 4 after learning window 5: 50.0% right" in page.text
    assert "after learning window 3" not in page.text
    with pytest.raises(ValueError, match="rows for 10 windows"):
        replace(story, matrix_windows=kept)


def test_a_chain_without_windows_has_no_report(story: Story) -> None:
    with pytest.raises(ValueError, match="no window has closed"):
        report_html(replace(story, windows=(), matrix=()))


def test_the_better_and_the_worse_are_not_mixed_up(story: Story) -> None:
    ours = replace(story.methods["priorflow"], prequential_accuracy=0.80, prequential_nll=0.50)
    other = replace(ours, prequential_accuracy=0.75, prequential_nll=0.70)
    told = replace(story, methods={**story.methods, "priorflow": ours, "bag of words": other})
    said = report_words.opening(told)[1]
    assert "bag of words was right 5.0 points less often than priorflow" in said
    assert "paid 0.20 nats a mail more" in said
    even = replace(told, methods={**told.methods, "bag of words": ours})
    assert "bag of words was right as often as priorflow and paid the same" in (report_words.opening(even)[1])


def test_it_is_written_whole(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(story, path)
    assert path.read_text(encoding="utf-8") == report_html(story)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_after_a_rollback_the_champion_is_who_was_put_back(story: Story) -> None:
    first = next(d for d in story.decisions if d.action == "promote")
    back = replace(first, action="rollback", at_ms=first.at_ms + 10**9)
    text = report_html(replace(story, decisions=(*story.decisions, back)))
    assert f"<dt>Champion</dt><dd>version {first.mlflow_version}</dd>" in text
