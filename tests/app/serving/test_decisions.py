"""Decisions over HTTP: with the key alone, as the commands take them, and told at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Route

from connectors.blobs import open_blobs
from connectors.decision_log import champion
from connectors.ledger import open_ledger
from posterior.snapshot import LogMoved
from priorflow.config import Settings, load
from priorflow.console import Silent
from priorflow.deciding import Bench
from priorflow.secret import NoSecret
from priorflow.serving import decisions
from priorflow.serving.app import application
from priorflow.serving.desk import Desk
from priorflow.serving.gauges import Gauges
from priorflow.serving.looking import application as beside_a_run
from priorflow.serving.watcher import Watcher
from tests.app.judged import Court
from tests.app.serving.test_app import PROBLEM, assert_problem
from tests.app.serving.test_watcher import Town
from tests.connectors.receiver import receiving

KEY = {"authorization": "Bearer k3y"}


@dataclass
class House:
    """A chain that was judged, and what answers beside it."""

    court: Court
    settings: Settings
    client: TestClient

    def post(self, way: str, body: Any = None, *, key: dict[str, str] | None = None, **more: Any) -> Any:
        sent = {"reason": "a test"} if body is None else body
        return self.client.post(way, json=sent, headers=KEY if key is None else key, **more)

    @property
    def lines(self) -> int:
        return self.court.ledger.decided("main")


def settings_in(home: Path, **more: Any) -> Settings:
    return load(None, overrides={"home": str(home), "mlflow.enabled": False, **more})


def clients(settings: Settings) -> Iterator[TestClient]:
    desk = Desk(most=settings.serve.max_waiting, patience_s=60)
    watcher = Watcher(desk, Town.__new__(Town), poll_s=60)
    app = application(settings, desk, watcher, Gauges(desk, watcher), version="0")
    yield TestClient(app, raise_server_exceptions=False)
    yield TestClient(beside_a_run(settings, Silent()), raise_server_exceptions=False)


@pytest.fixture(params=[0, 1], ids=["serve", "run"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    settings = settings_in(tmp_path, **{"serve.decision_key": "k3y"})
    blobs = open_blobs(settings.blobs_url)
    ledger = open_ledger(settings.ledger_url, blobs)
    court = Court.opened(ledger, blobs)
    for p in (0.9, 0.9, 0.6, 0.6, 0.6, 0.6):
        court.step(p)
    yield House(court, settings, list(clients(settings))[request.param])
    ledger.close()


@pytest.mark.parametrize("said", [{}, {"serve.api_key": "k3y"}])
def test_without_a_key_of_its_own_nobody_decides(tmp_path: Path, said: dict[str, str]) -> None:
    for client in clients(settings_in(tmp_path, **said)):
        assert_problem(client.post("/promote", json={"reason": "x"}, headers=KEY), 404, "Not Found")
        assert_problem(client.post("/rollback", json={"reason": "x"}, headers=KEY), 404, "Not Found")
        assert "<script" not in client.get("/").text


@pytest.mark.parametrize("way", ["/promote", "/rollback"])
@pytest.mark.parametrize(
    "key", [{}, {"authorization": "Bearer wrong"}, {"cookie": "authorization=Bearer k3y"}]
)
def test_a_stranger_decides_nothing_and_learns_nothing(house: House, way: str, key: dict[str, str]) -> None:
    before = house.lines
    sound = {"reason": "a test", "snapshot": house.court.writer.head.sha, "force": True}
    bodies: tuple[Any, ...] = (sound, {}, [])
    for body in bodies:
        assert_problem(house.post(way, body, key=key), 401, "Bearer")
    assert house.lines == before


def test_who_may_ask_need_not_be_who_may_decide(house: House) -> None:
    both = {"serve.api_key": "ask", "serve.decision_key": "k3y"}
    for client in clients(settings_in(house.settings.home, **both)):
        house.client = client
        assert_problem(house.post("/promote", key={"authorization": "Bearer ask"}), 401, "Bearer")
        assert_problem(house.post("/promote"), 409, "the gates do not allow")


def test_a_key_that_says_nothing_opens_nothing(tmp_path: Path) -> None:
    """A file that somebody has yet to fill: no server, rather than one that lets in who says nothing."""
    file = tmp_path / "key"
    for held in ("", " \n", "k3\x00y"):
        file.write_text(held, encoding="utf-8")
        with pytest.raises(NoSecret, match=r"serve\.decision_key_file"):
            list(clients(settings_in(tmp_path, **{"serve.decision_key_file": str(file)})))


@pytest.mark.parametrize("way", ["/promote", "/rollback"])
def test_another_site_cannot_have_a_browser_decide(house: House, way: str) -> None:
    """What a browser sends for a page of another origin without asking first: no header of ours."""
    before = house.lines
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        sent = house.client.post(way, content=b'{"reason": "x"}', headers={"content-type": kind})
        assert sent.status_code in {401, 422}
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = house.client.options(way, headers=asked)
    assert preflight.status_code == 405
    answered = house.post(way, {}, key=KEY | {"origin": "https://evil.example"})
    shown = house.client.get("/", headers={"origin": "https://evil.example"})
    assert (answered.status_code, shown.status_code) == (422, 200)
    for answer in (preflight, answered, shown):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "set-cookie" not in answer.headers
    assert house.lines == before


def test_all_html_is_ours_alone(house: House) -> None:
    """Every page there is comes with a policy, and none that would load somebody else's scripts is there."""
    app = house.client.app
    assert isinstance(app, FastAPI)
    ways = {route.path for route in app.routes if isinstance(route, Route) and "GET" in (route.methods or ())}
    assert "/" in ways
    assert not ways & {"/docs", "/redoc", "/docs/oauth2-redirect"}
    for way in ways:
        shown = house.client.get(way)
        if "text/html" not in shown.headers["content-type"]:
            continue
        assert shown.status_code == 200
        policy = shown.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
        assert not re.search(r"""(src|href|action)=|https?://""", shown.text)


def test_a_promotion_is_the_line_that_the_command_writes(house: House) -> None:
    head = house.court.writer.head
    body = {"snapshot": head.sha[:12], "force": True, "reason": "  known gap ", "by": "ada"}
    told = house.post("/promote", body).json()
    line = house.court.log()[-1]
    assert champion(house.court.log()) == head.sha
    assert line.evidence == {"reason": "known gap", "forced": True, "finding": None}
    assert line.actor.startswith("ada, by key at ")
    assert (told["line"], told["snapshot"], told["hash"]) == (line.seq, head.sha, line.hash)
    assert (told["action"], told["by"], told["reason"]) == ("promote", line.actor, "known gap")


def test_a_rollback_goes_back_and_may_have_learning_go_on_from_there(house: House) -> None:
    first = champion(house.court.log())
    house.post("/promote", {"snapshot": house.court.writer.head.sha, "force": True, "reason": "x"})
    told = house.post("/rollback", {"reason": "complaints", "continue_from": "champion"})
    assert (told.status_code, told.json()["snapshot"]) == (200, first)
    assert house.court.log()[-1].evidence == {"reason": "complaints", "continue_from": "champion"}


def test_what_the_command_refuses_is_a_problem(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    before = house.lines
    assert_problem(house.post("/promote"), 409, "the gates do not allow")
    assert_problem(house.post("/rollback"), 409, "no champion before")
    assert_problem(house.post("/promote", {"snapshot": "0" * 64, "reason": "x"}), 409, "no snapshot begins")

    def moved(*_: Any, **__: Any) -> None:
        msg = "ada has decided something since"
        raise LogMoved(msg)

    monkeypatch.setattr(Bench, "promote", moved)
    assert_problem(house.post("/promote"), 409, "ada has decided")
    assert house.lines == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "reason"),
        ({"reason": "   "}, "reason"),
        ({"reason": "two\nlines"}, "reason"),
        ({"reason": "a" * 501}, "reason"),
        ({"reason": "\x9b31m red in a terminal"}, "reason"),
        ({"reason": "approved by \u202eada"}, "reason"),
        ({"reason": "one\u2028two"}, "reason"),
        ({"reason": "x", "by": "\u2067ada"}, "by: "),
        ({"reason": "x", "by": "gate\n"}, "by"),
        ({"reason": "x", "snapshot": "abc"}, "snapshot"),
        ({"reason": "x", "colour": "red"}, "colour"),
    ],
)
def test_what_does_not_fit_is_told_where(house: House, body: dict[str, str], said: str) -> None:
    before = house.lines
    answer = house.post("/promote", body)
    if said == "by":  # white space around a name is nothing
        assert answer.status_code == 409
    else:
        assert_problem(answer, 422, said)
    assert house.lines == before


def test_nobody_can_pass_for_the_gate(house: House) -> None:
    body = {"snapshot": house.court.writer.head.sha, "force": True, "reason": "x", "by": "gate"}
    assert house.post("/promote", body).status_code == 200
    assert house.court.log()[-1].actor not in {"gate", "alias"}


def test_a_body_that_is_too_large_is_refused(house: House) -> None:
    assert_problem(house.post("/promote", {"reason": "a" * (1 << 20)}), 413, "serve.max_body")


def test_a_ledger_that_is_away_is_503(house: House, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").rename(tmp_path / "away.db")
    assert_problem(house.post("/promote"), 503, "no ledger")
    (tmp_path / "away.db").rename(tmp_path / "ledger.db")


def test_openapi_says_who_may(house: House, tmp_path: Path) -> None:
    del house
    locked, _ = clients(settings_in(tmp_path, **{"serve.api_key": "ask", "serve.decision_key": "k3y"}))
    paths = locked.get("/openapi.json").json()["paths"]
    for way in ("/predict", "/promote", "/rollback"):
        assert paths[way]["post"]["security"] == [{"HTTPBearer": []}]
        assert PROBLEM in paths[way]["post"]["responses"]["401"]["content"]
    opened, _ = clients(settings_in(tmp_path))
    assert "security" not in opened.get("/openapi.json").json()["paths"]["/predict"]["post"]


def test_a_decision_is_told_to_the_webhook(house: House) -> None:
    with receiving() as receiver:
        settings = settings_in(
            house.settings.home, **{"serve.decision_key": "k3y", "decisions.webhook": receiver.url}
        )
        for client in clients(settings):
            house.client = client
            head = house.court.learn(0.5)[0]
            body = {"snapshot": head.sha, "force": True, "reason": "x"}
            assert house.post("/promote", body).status_code == 200
            assert receiver.events[-1]["subject"] == head.sha


def test_asked_again_what_follows_a_decision_is_done_and_nothing_is_decided_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever took it died between the log and the webhook."""
    with receiving() as receiver:
        settings = settings_in(
            house.settings.home, **{"serve.decision_key": "k3y", "decisions.webhook": receiver.url}
        )
        for client in clients(settings):
            house.client = client
            head = house.court.learn(0.5)[0]
            body = {"snapshot": head.sha, "force": True, "reason": "x"}
            with monkeypatch.context() as dying:
                dying.setattr(decisions, "carry_out", lambda *_: None)
                assert house.post("/promote", body).status_code == 200
            taken, told = house.lines, len(receiver.events)
            assert_problem(house.post("/promote", body), 409, "is champion already")
            assert house.lines == taken
            assert [one["subject"] for one in receiver.events[told:]] == [head.sha]
