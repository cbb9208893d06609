from __future__ import annotations

import math
import os
from collections import Counter
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import mails
from connectors.mails import MAX_CHARS, Mail, fetch_mails, label_delays, load_mails

HOUR = 3_600_000


def message(**headers: str) -> str:
    made = EmailMessage()
    for name, value in {"Date": "Thu, 22 Aug 2002 18:26:25 +0700", **headers}.items():
        made[name.replace("_", "-")] = value
    made.set_content("the  body\n\nof it")
    return made.as_string()


def read(text: str, group: str = "easy-ham-1") -> Mail | None:
    return mails._mail({"id": "1", "group": group, "text": text})


@pytest.mark.parametrize(
    ("headers", "group", "label"),
    [
        ({}, "spam-2", "spam"),
        ({"List_Id": "Forks <fork.xent.com>"}, "spam-1", "spam"),
        ({"X_Mailing_List": "zzzzteana@yahoogroups.com"}, "easy-ham-1", "zzzzteana"),
        ({"List_Id": "<spamassassin-devel.example.net>"}, "easy-ham-2", "sa"),
        ({"List_Id": "Users <exmh-users.example.com>"}, "hard-ham-1", "exmh"),
        ({"From": "feeds <rssfeeds@spamassassin.taint.org>"}, "easy-ham-1", "newsfeed"),
        ({"List_Id": "<other.example.com>"}, "easy-ham-1", None),
        ({"From": "a@example.com"}, "easy-ham-1", None),
    ],
)
def test_routing(headers: dict[str, str], group: str, label: str | None) -> None:
    found = read(message(**headers), group)
    assert (found and found.label) == label


def test_the_last_hop_tells_the_time_and_no_date_no_mail() -> None:
    late = {"Received": "from a by b; Fri, 23 Aug 2002 10:00:00 +0100"}
    found, dated = read(message(**late), "spam-1"), read(message(), "spam-1")
    assert found is not None
    assert dated is not None
    assert (found.time_ms, dated.time_ms) == (1_030_093_200_000, 1_030_015_585_000)
    assert read(message(Date="yesterday"), "spam-1") is None


def test_what_gives_the_queue_away_is_left_out() -> None:
    found = read(message(Subject="[ILUG] Re: [spam] a question", List_Id="<ilug.linux.ie>"))
    assert found is not None
    assert found.text == "Re:  a question\nthe body of it"
    long = read(message(Subject="x" * 2000), "spam-1")
    assert long is not None
    assert len(long.text) == MAX_CHARS


@given(st.integers(0, 2**31), st.integers(0, 300))
def test_delays_depend_on_the_seed_alone(seed: int, count: int) -> None:
    delays = label_delays(count, seed=seed)
    assert delays == label_delays(count, seed=seed)
    assert label_delays(count + 50, seed=seed)[:count] == delays  # a longer history begins the same
    assert all(delay is None or 0 <= delay <= 30 * 24 * HOUR for delay in delays)


def test_delays_have_a_heavy_tail_and_three_in_a_hundred_never_come() -> None:
    delays = label_delays(20_000, seed=7)
    told = sorted(delay for delay in delays if delay is not None)
    assert 1 - len(told) / len(delays) == pytest.approx(0.03, abs=0.005)
    median, p99 = told[len(told) // 2] / HOUR, told[int(len(told) * 0.99)] / HOUR
    assert median == pytest.approx(3, rel=0.1)
    assert p99 == pytest.approx(3 * math.exp(1.7 * 2.33), rel=0.2)
    assert None not in label_delays(1000, seed=7, never=0)


@pytest.mark.slow
def test_the_stream_is_the_one_we_know() -> None:
    home = Path(os.environ.get("PRIORFLOW_HOME", Path(__file__).parents[2] / ".priorflow"))
    found = load_mails(fetch_mails(home / "assets"))
    assert found == sorted(found)
    assert len({mail.id for mail in found}) == len(found) == 5327
    assert Counter(mail.label for mail in found) == {
        "spam": 1896,
        "fork": 1060,
        "newsfeed": 636,
        "ilug": 544,
        "rpm": 397,
        "exmh": 229,
        "sa": 221,
        "razor": 213,
        "zzzzteana": 131,
    }
    assert all(0 < len(mail.text) <= MAX_CHARS and "\0" not in mail.text for mail in found)
