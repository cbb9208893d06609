"""The page of a `priorflow serve`, in a real browser: who answers, what was decided, who may decide."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors.blobs import open_blobs
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.deciding import Bench
from priorflow.run import execute
from tests.app.histories import history, opened
from tests.app.streams import archived, real_settings, small_stream
from tests.app.test_kinship import derive
from tests.browser.devtools import LIMIT_S, Browser, browsing
from tests.browser.test_pages import BROWSER

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]  # a server loads its model first
KEY = "k3y"
# Chains derived from the one that is served, the newest last; a name may be as long as a screen is wide.
DERIVED = ("w" * 90, "older", "early", "late", "newest")
SIZES = {"wide": (1100, 900), "phone": (400, 800)}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Four windows, the second of which a person has put in charge, and learning that turned to the first."""
    folder = tmp_path_factory.mktemp("serve")
    archive = archived(small_stream(), folder / "stream")
    made = real_settings(folder / "home", archive, **{"gate.enabled": False})
    execute(made, max_windows=3, console=Silent())
    _, first, second, *_ = history(made)
    with opened(made) as ledger:
        blobs = open_blobs(made.blobs_url)
        bench = Bench(ledger=ledger, blobs=blobs, chain="main", actor="ada@host", at_ms=1)
        bench.promote(first.sha, force=True, reason="to begin with")
        bench.promote(second.sha, force=True, reason="the labels of June")
        bench.roll_back(first.sha, reason="complaints", continue_from="champion")
    execute(made, until_end=True, console=Silent())
    with opened(made) as ledger:
        for at, name in enumerate(DERIVED):
            derive(ledger, name, ledger.history("main")[-1], at_ms=1_000 + at)
    return made


@contextmanager
def serving(settings: Settings, **environment: str) -> Iterator[str]:
    """Run the command on a free port, and give its address."""
    said: Mapping[str, Any] = settings.model_dump(mode="json", exclude_unset=True)
    config = settings.home_folder / "priorflow.yaml"
    config.write_text(json.dumps(said), encoding="utf-8")
    command = [sys.executable, "-m", "priorflow", "serve", "--port", "0", "--json", "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        assert process.stdout is not None
        told = next(line for line in map(json.loads, process.stdout) if line["event"] == "serving")
        yield f"http://127.0.0.1:{told['port']}"
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)


@pytest.fixture(scope="module")
def address(settings: Settings) -> Iterator[str]:
    """One server without a key for all who only look."""
    with serving(settings) as at:
        yield at


@pytest.fixture(params=list(SIZES))
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return SIZES[request.param]


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    found = shutil.which(BROWSER)
    assert found is not None, f"no {BROWSER} here; `make test-browser` installs it"
    quiet = [found, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    with browsing(quiet) as made:
        yield made


def tile(browser: Browser, name: str) -> str:
    """Return what a tile says, by its name as a person reads it."""
    script = (
        f"[...document.querySelectorAll('.tile')].find(t => t.querySelector('dt').innerText === '{name}')"
    )
    return str(browser.sees(f"({script}).querySelector('dd').innerText"))


def test_it_shows_who_answers_and_what_was_decided(
    settings: Settings, address: str, chromium: Browser, size: tuple[int, int]
) -> None:
    champion = history(settings)[1].sha
    open_when_it_answers(chromium, address, size)
    assert tile(chromium, "Champion") == tile(chromium, "Answers here") == champion[:8]
    log = chromium.sees("[...document.querySelectorAll('.log li')].map(e => e.innerText)")
    why = ("complaints", "the labels of June", "to begin with")
    assert [reason in line for reason, line in zip(why, log, strict=True)] == [True] * 3, "newest first"
    assert chromium.sees("document.querySelectorAll('button').length") == 0
    assert chromium.sees("document.querySelectorAll('script').length") == 0
    assert {url.startswith(address) for url in chromium.asked() if url != "about:blank"} == {True}


def open_when_it_answers(browser: Browser, at: str, size: tuple[int, int]) -> None:
    """Open the page once somebody answers: it is kept for seconds, and would say that nobody does."""
    deadline = time.monotonic() + LIMIT_S
    while '"snapshot":' not in browser.sees("document.body.innerText"):
        assert time.monotonic() < deadline, "nobody answers"
        browser.open(f"{at}/readyz", size)
    browser.open(f"{at}/", size)


def test_the_lineage_is_a_tree_that_fits(
    settings: Settings, address: str, chromium: Browser, size: tuple[int, int]
) -> None:
    rows = history(settings)
    assert [row.kind for row in rows[:5]] == ["root", "learned", "learned", "learned", "branch"]
    open_when_it_answers(chromium, address, size)
    boxes = [box(chromium, f'.tree code[title="{row.sha}"]') for row in rows]
    assert [at["top"] for at in boxes] == sorted(at["top"] for at in boxes)
    assert boxes[2]["left"] == boxes[3]["left"] > boxes[1]["left"] + 10, "what was left is set in"
    assert boxes[-1]["left"] == boxes[1]["left"], "the line to the head is not"
    marks = chromium.sees("[...document.querySelectorAll('.mark')].map(e => e.innerText)")
    assert sorted(marks) == ["answers here", "champion", "head"]
    right = "Math.max(...[...document.querySelectorAll('.tree *')].map(e => e.getBoundingClientRect().right))"
    assert chromium.sees(right) <= chromium.sees("innerWidth")
    assert chromium.sees("document.documentElement.scrollWidth") <= chromium.sees("innerWidth")


def test_derived_chains_are_in_the_tree_or_a_click_away(
    address: str, chromium: Browser, size: tuple[int, int]
) -> None:
    open_when_it_answers(chromium, address, size)
    tree = "document.querySelector('.tree').innerText"
    folded, shown = DERIVED[:-3], DERIVED[-3:]
    assert {f"derived again as chain {name}" in chromium.sees(tree) for name in shown} == {True}
    assert "2 older of 5 chains derived from this one" in chromium.sees(tree)
    assert not any(f"chain {name} left" in chromium.sees(tree) for name in folded)
    chromium.click(".tree .kin summary")
    chromium.until(f"{tree}.includes('chain older left window 4')")
    assert all(f"chain {name} left" in chromium.sees(tree) for name in folded)
    assert chromium.sees("document.documentElement.scrollWidth") <= chromium.sees("innerWidth")
    right = "Math.max(...[...document.querySelectorAll('.tree *')].map(e => e.getBoundingClientRect().right))"
    assert chromium.sees(right) <= chromium.sees("innerWidth")


def box(browser: Browser, selector: str) -> dict[str, float]:
    """Return where something lies."""
    found = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()"
    return dict(browser.sees(found))


def test_with_a_key_there_are_buttons_and_they_decide(settings: Settings, chromium: Browser) -> None:
    with serving(settings, PRIORFLOW_SERVE__DECISION_KEY=KEY) as at:
        open_when_it_answers(chromium, at, SIZES["wide"])
        ways = chromium.sees("[...document.querySelectorAll('button[data-way]')].map(e => e.dataset.way)")
        assert ways[0] == "promote"
        second = history(settings)[2].sha
        chromium.click("button[data-way=promote]")
        for name, text in (("snapshot", second), ("reason", "July"), ("key", KEY)):
            chromium.sees(f"document.querySelector('dialog [name={name}]').value = ''")
            chromium.type(f"dialog [name={name}]", text)
        chromium.click("dialog [name=force]")
        chromium.click("dialog [name=send]")
        chromium.until("!document.querySelector('dialog').open && document.body.innerText.includes('July')")
        assert tile(chromium, "Champion") == second[:8]
