"""The page at `/`: what the ledger says, readable without a script, a server of others, or luck."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import re
import urllib.request
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from connectors.decision_log import champion
from priorflow.config import Settings
from priorflow.console import JsonLines, Silent
from priorflow.descent import descent
from priorflow.look import Look, look, reliability
from priorflow.page import Kept, page, page_html, troubles
from priorflow.run import execute
from priorflow.serving.looking import application, looked_at
from tests.app.histories import history, opened
from tests.app.serving.clerk import snapshot
from tests.app.streams import archived, small_settings, small_stream
from trainers.branching import branch_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("page")
    made = small_settings(folder / "home", archived(small_stream(), folder / "stream"))
    execute(made, until_end=True, console=Silent())
    return made


@pytest.fixture
def found(settings: Settings) -> Look:
    seen = look(settings, ask_kafka=False)
    assert seen is not None
    return seen


def test_it_says_what_the_ledger_says(settings: Settings, found: Look) -> None:
    text = unescape(page_html(found, answering=None, trouble=None, looked_ms=0))
    head = history(settings)[-1]
    assert head.sha[:12] in text
    for row in history(settings):
        if row.kind == "learned":
            assert row.sha[:12] in text
    assert f"{head.counts['consumed']:,} records were consumed" in text
    assert text.count("<svg") == 6


def test_it_needs_nothing_from_anywhere(found: Look) -> None:
    text = page_html(found, answering=None, trouble=None, looked_ms=0)
    assert "<script" not in text
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert "url(" not in text
    assert 'name="viewport"' in text


def test_what_came_with_the_stream_cannot_become_markup(found: Look) -> None:
    assert found.story is not None
    row = replace(found.story.windows[-1], alarms=("<b>",), drift=True)
    story = replace(found.story, windows=(*found.story.windows[:-1], row))
    text = page_html(replace(found, story=story), answering=None, trouble="<i>", looked_ms=0)
    assert "<b>" not in text
    assert "<i>" not in text


def test_trouble_comes_first_and_without_passwords(found: Look) -> None:
    said = troubles(found, "cannot reach postgresql://me:secret@db/flow")
    assert "secret" not in said[0]
    text = page_html(found, answering=None, trouble=said[0], looked_ms=0)
    assert text.index("cannot reach") < text.index("Foretold before")


def test_a_place_without_a_ledger_or_a_snapshot_has_a_page_too(tmp_path: Path) -> None:
    assert "there is no ledger" in page(small_settings(tmp_path / "nothing", tmp_path / "stream"))
    assert "no snapshot yet" in unescape(page_html(None, answering=None, trouble=None, looked_ms=0))


def test_it_is_there_where_the_password_for_kafka_is_not(settings: Settings, tmp_path: Path) -> None:
    """It is read from the ledger: only how far the log is ahead is unknown then."""
    kafka: dict[str, Any] = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "reader",
    }
    kafka |= {"bootstrap": "127.0.0.1:1", "sasl_password_file": tmp_path / "not mounted here"}
    elsewhere = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=kafka)})
    seen = look(elsewhere)
    assert seen is not None
    assert {row["lag"] for row in seen.place["positions"]} == {None}
    assert "unknown" in page_html(seen, answering=None, trouble=None, looked_ms=0)


def test_reliability_adds_up_what_windows_counted() -> None:
    one = replace(snapshot(1), report={"confidences": [[50, 2, 1], [99, 1, 1]]})
    two = replace(snapshot(2), report={"confidences": [[52, 2, 2], [100, 1, 1]]})
    low, high = reliability([one, two])
    assert (low.count, low.accuracy, low.lower) == (4, 0.75, 0.5)
    assert low.confidence == pytest.approx(0.515)
    assert (high.count, high.accuracy) == (2, 1.0)
    assert 0.95 < high.confidence <= 1
    assert reliability([snapshot(1)]) == ()


def test_however_many_look_the_ledger_is_asked_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = itertools.count(1)
    monkeypatch.setattr("priorflow.page.page", lambda *_, **_said: str(next(asked)))
    kept = Kept(settings, seconds=60)
    assert [kept.page() for _ in range(3)] == ["1", "1", "1"]
    assert kept.page(trouble="away") == "2"


def test_decisions_are_listed_newest_first(found: Look) -> None:
    assert found.story is not None
    decided = [made.at_ms for made in found.story.decisions]
    assert decided == sorted(decided)
    text = page_html(found, answering=None, trouble=None, looked_ms=0)
    places = [text.index(f"snapshot <code>{made.snapshot_sha[:12]}") for made in found.story.decisions]
    assert places == sorted(places, reverse=True)


def test_each_decision_has_its_evidence(found: Look) -> None:
    assert found.story is not None
    assert len(found.gates) == len(found.story.decisions) > 0
    text = unescape(page_html(found, answering=None, trouble=None, looked_ms=0))
    for gates in found.gates:
        for gate in gates:
            for name, number in gate["numbers"].items():
                assert f"{name} {number:.4g}" in text


def test_lineage_says_where_learning_turned(settings: Settings, found: Look) -> None:
    rows = history(settings)[:4]
    rows.append(branch_of(rows[3], rows[1], rows, "a decision"))
    turned = replace(found, lineage=descent(rows, head=rows[-1].sha))
    text = unescape(page_html(turned, answering=None, trouble=None, looked_ms=0))
    assert f"learning goes on from {rows[1].sha[:12]}, without windows 2\N{EN DASH}3" in text
    assert text.index(rows[1].sha) < text.index(rows[3].sha) < text.index(rows[4].sha), (
        "what left comes first"
    )


def test_each_window_of_the_lineage_names_the_records_it_read(settings: Settings, found: Look) -> None:
    text = unescape(page_html(found, answering=None, trouble=None, looked_ms=0))
    items = re.findall(r"<li class=.*?(?=<li|</ol>)", text.partition("<h2>Lineage")[2], re.DOTALL)
    rows = [row for row in history(settings) if row.kind == "learned"]
    assert len(rows) == 4
    for row in rows:
        (item,) = [one for one in items if row.sha in one]
        for before, after in zip(row.spans_before, row.spans, strict=True):
            if after.low > before.low + 1:
                assert f"{after.partition}: {before.low}\N{EN DASH}{after.low - 1}" in item


def test_the_lineage_marks_head_and_champion_and_no_other(settings: Settings, found: Look) -> None:
    text = page_html(found, answering=None, trouble=None, looked_ms=0).partition("<h2>Lineage")[2]
    with opened(settings) as ledger:
        chosen = champion(ledger.decisions("main"))
    assert chosen is not None
    for mark, sha in (("head", history(settings)[-1].sha), ("champion", chosen)):
        at = text.index(f'<span class="mark">{mark}</span>')
        assert text.count(f'<span class="mark">{mark}</span>') == 1
        assert text.rfind(f'<code title="{sha}">', 0, at) == text.rfind("<code title=", 0, at)


def test_with_a_key_it_offers_to_decide_and_allows_nothing_else(settings: Settings) -> None:
    locked = settings.serve.model_copy(update={"decision_key": SecretStr("k3y")})
    client = TestClient(application(settings.model_copy(update={"serve": locked}), Silent()))
    shown = client.get("/")
    policy = shown.headers["content-security-policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", shown.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    for said in (
        "default-src 'none'",
        "form-action 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert said in policy
    assert not re.search(r"""(src|href|action)=["']""", shown.text)
    assert "k3y" not in shown.text + str(shown.headers)
    assert 'data-way="promote"' in shown.text
    plain = TestClient(application(settings, Silent())).get("/")
    assert "script-src" not in plain.headers["content-security-policy"]
    assert "<button" not in plain.text


def test_a_run_shows_it_beside_itself(settings: Settings) -> None:
    out = io.StringIO()
    with looked_at(settings, 0, JsonLines(out)):
        at = json.loads(out.getvalue())["address"]
        with urllib.request.urlopen(f"{at}/", timeout=30) as shown:
            assert history(settings)[-1].sha[:12] in shown.read().decode()
        with urllib.request.urlopen(f"{at}/healthz", timeout=30) as well:
            assert json.load(well) == {"status": "ok"}
