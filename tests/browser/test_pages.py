"""The pages in a real browser: Debian's chromium, headless. `make test-browser` runs these.

What is looked at is what a person would see: the page as it is laid out, on a wide screen and on a phone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.page import page
from priorflow.run import execute
from tests.app.streams import archived, real_settings, small_stream

pytestmark = pytest.mark.browser
BROWSER = os.environ.get("PRIORFLOW_BROWSER", "chromium")
LIMIT_S = 60
MEASURE = """<script>
const most = Math.max(...[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg')).map(
  e => e.getBoundingClientRect().right));
document.title = JSON.stringify({wide: document.documentElement.scrollWidth, most, screen: innerWidth,
  drawn: [...document.querySelectorAll('svg')].filter(e => e.getBoundingClientRect().height > 8).length,
  loaded: performance.getEntriesByType('resource').length});
</script>"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("browser")
    made = real_settings(folder / "home", archived(small_stream(), folder / "stream"))
    execute(made, until_end=True, console=Silent())
    return made


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    found = shutil.which(BROWSER)
    assert found is not None, f"no {BROWSER} here; `make test-browser` installs it"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000"]
    return [found, *quiet, f"--user-data-dir={tmp_path / 'profile'}"]


def shown(browser: list[str], file: Path, size: tuple[int, int]) -> dict[str, float]:
    """Lay the page out at this size and measure it."""
    said = subprocess.run(
        [*browser, f"--window-size={size[0]},{size[1]}", "--dump-dom", file.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    ).stdout
    title = re.search(r"<title>(.*?)</title>", said, re.DOTALL)
    assert title is not None
    return {k: float(v) for k, v in re.findall(r'"(\w+)":([\d.]+)', title[1].replace("&quot;", '"'))}


@pytest.mark.parametrize("size", [(1100, 1400), (500, 900)], ids=["wide", "phone"])
def test_the_page_fits_and_loads_nothing(
    settings: Settings, browser: list[str], tmp_path: Path, size: tuple[int, int]
) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(settings).replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    seen = shown(browser, file, size)
    assert seen["most"] <= seen["screen"] + 1, "something reaches beyond the screen"
    assert seen["wide"] <= seen["screen"] + 1, "the page scrolls sideways"
    assert seen["drawn"] == 6
    assert seen["loaded"] == 0
