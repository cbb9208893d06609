"""Promote and roll back by hand, in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from connectors.decision_log import champion
from posterior.snapshot import Decision
from priorflow.config import Settings
from priorflow.console import JsonLines, Silent
from priorflow.run import execute
from priorflow.serving.looking import looked_at
from tests.app.histories import opened
from tests.app.streams import archived, real_settings, small_stream
from tests.browser.devtools import Browser, browsing
from tests.browser.test_pages import BROWSER

pytestmark = pytest.mark.browser
PHOTOGRAPHS = os.environ.get("PRIORFLOW_PHOTOGRAPHS")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buttons")
    archived(small_stream(), folder / "stream")
    execute(settings_in(folder), until_end=True, console=Silent())
    return folder


@pytest.fixture
def settings(learned: Path, tmp_path: Path) -> Settings:
    shutil.copytree(learned, tmp_path / "here")
    made = settings_in(tmp_path / "here")
    return made.model_copy(update={"serve": made.serve.model_copy(update={"decision_key": SecretStr("k3y")})})


def settings_in(folder: Path) -> Settings:
    return real_settings(folder / "home", folder / "stream")


@pytest.fixture(params=[(1100, 900), (400, 800)], ids=["wide", "phone"])
def browser(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Browser]:
    found = shutil.which(BROWSER)
    assert found is not None, f"no {BROWSER} here; `make test-browser` installs it"
    quiet = [found, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    out = io.StringIO()
    with looked_at(settings, 0, JsonLines(out)), browsing(quiet) as made:
        made.open(json.loads(out.getvalue())["address"], request.param)
        yield made


def log(settings: Settings) -> Any:
    with opened(settings) as ledger:
        return ledger.decisions("main")


def fill(browser: Browser, **fields: str) -> None:
    for name, text in fields.items():
        browser.type(f"dialog [name={name}]", text)


def photograph(browser: Browser, request: pytest.FixtureRequest, what: str) -> None:
    if PHOTOGRAPHS:
        name = request.node.callspec.id
        browser.photograph(Path(PHOTOGRAPHS) / f"{what}-{name}.png")


def test_a_person_promotes_and_rolls_back(
    browser: Browser, settings: Settings, request: pytest.FixtureRequest
) -> None:
    before = log(settings)
    first = champion(before)
    photograph(browser, request, "page")
    browser.click("button[data-way=promote]")
    assert browser.sees("document.querySelector('dialog').open")
    fill(browser, reason="the labels of June", by="ada", key="wrong")
    browser.click("dialog [name=send]")
    browser.until("document.querySelector('dialog output').value.includes('asks for a key')")
    fill(browser, key="")
    browser.sees("document.querySelector('dialog [name=key]').value = ''")
    fill(browser, key="k3y")
    browser.click("dialog [name=send]")
    browser.until("document.querySelector('dialog output').value.includes('gates')")
    photograph(browser, request, "refused")
    assert log(settings) == before, "a key that is wrong, or a gate that does not allow it, decides nothing"
    browser.click("dialog [name=force]")
    browser.click("dialog [name=send]")
    browser.until(
        "!document.querySelector('dialog').open && document.body.innerText.includes('the labels of June')"
    )
    line: Decision = log(settings)[-1]
    assert (line.action, line.evidence["forced"], line.previous) == ("promote", True, first)
    assert line.actor.startswith("ada, by key at ")

    browser.click("button[data-way=rollback]")
    fill(browser, reason="complaints", key="k3y")
    browser.sees("document.querySelector('dialog [name=onward]').value = 'champion'")
    photograph(browser, request, "rollback")
    browser.click("dialog [name=send]")
    browser.until("document.body.innerText.includes('complaints')")
    line = log(settings)[-1]
    assert (line.action, line.snapshot) == ("rollback", first)
    assert line.evidence == {"reason": "complaints", "continue_from": "champion"}
    refused = [one for one in browser.complaints() if "401" not in one and "409" not in one]
    assert refused == [], "only answers that were refused are complained of"
    origin = browser.sees("location.origin")
    assert {url.startswith(origin) for url in browser.asked() if url != "about:blank"} == {True}
    assert browser.sees("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})") == "{}"


def test_who_leaves_it_decides_nothing(browser: Browser, settings: Settings) -> None:
    before = log(settings)
    browser.click("button[data-way=rollback], button[data-way=promote]")
    fill(browser, reason="by mistake", key="k3y")
    browser.click("dialog [name=leave]")
    assert not browser.sees("document.querySelector('dialog').open")
    browser.click("button[data-way=promote]")
    assert browser.sees("document.querySelector('dialog [name=key]').value") == ""
    assert log(settings) == before


def test_the_page_with_its_buttons_fits(browser: Browser) -> None:
    browser.click("button[data-way=promote]")
    box = "document.querySelector('dialog').getBoundingClientRect()"
    assert browser.sees(f"{box}.right") <= browser.sees("innerWidth")
    assert browser.sees(f"{box}.bottom") <= browser.sees("innerHeight")
    assert browser.sees("document.documentElement.scrollWidth") <= browser.sees("innerWidth")
