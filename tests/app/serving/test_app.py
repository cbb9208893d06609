"""Over HTTP: answers as documented, and for everything else a problem that says what to do."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from priorflow.config import load
from priorflow.serving.app import application
from priorflow.serving.desk import Desk
from priorflow.serving.gauges import Gauges
from priorflow.serving.listening import listening
from priorflow.serving.watcher import Standing, Watcher
from stream.prediction_id import event_of
from tests.app.serving.clerk import Clerk, version
from tests.app.serving.test_watcher import Town

PROBLEM = "application/problem+json"
JSON = {"content-type": "application/json"}


class Server:
    """An application with a clerk behind it."""

    def __init__(self, **serve: Any) -> None:
        settings = load(None, overrides={f"serve.{name}": value for name, value in serve.items()})
        self.desk = Desk(most=settings.serve.max_waiting, patience_s=60)
        self.watcher = Watcher(self.desk, Town.__new__(Town), poll_s=60)
        self.clerk = Clerk("one")
        app = application(settings, self.desk, self.watcher, Gauges(self.desk, self.watcher), version="0")
        self.client = TestClient(app, raise_server_exceptions=False)
        self.desk.start()

    def in_charge(self) -> Server:
        self.desk.offer(version(self.clerk)).result(10)
        return self

    def predict(self, body: Any, **more: Any) -> Any:
        return self.client.post("/predict", json=body, **more)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server().in_charge()
    yield made
    made.desk.stop()


def assert_problem(response: Any, status: int, said: str) -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == PROBLEM
    body = response.json()
    assert body["status"] == status
    assert said in body["detail"]


def test_one_text(server: Server) -> None:
    body = server.predict({"id": "mail-1", "text": "a long text, all in all"}).json()
    assert (body["event_id"], body["label"], body["abstain"], body["risk"]) == ("mail-1", "long", False, 0.1)
    assert event_of(body["prediction_id"]) == "mail-1"
    assert body["prediction_id"].endswith(body["snapshot"][:12])
    assert sum(body["probabilities"].values()) + body["novelty"] == pytest.approx(1)
    doubt = body["uncertainty"]
    assert doubt["total"] == doubt["aleatoric"] + doubt["epistemic"]
    assert body["version"] == "1"


def test_an_unsure_answer_abstains(server: Server) -> None:
    assert server.predict({"text": "ten signs."}).json()["abstain"] is True


def test_many_texts_in_their_order_and_names_for_those_that_have_none(server: Server) -> None:
    texts = ["hello, is anybody there?", "no", "hello, is anybody there?"]
    body = server.predict({"events": [{"text": t} for t in texts]}).json()
    assert [a["label"] for a in body["answers"]] == ["long", "short", "long"]
    assert len({a["event_id"] for a in body["answers"]}) == 3
    assert len({a["snapshot"] for a in body["answers"]}) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": 7}, "text"),
        ({"text": "a", "color": "red"}, "color"),
        ({"text": "a\0b"}, "null character"),
        ({"text": "a", "id": "pf1.YQ.0123456789ab"}, "prediction id"),
        ({"events": []}, "events"),
        ({"events": [{"text": "a"}] * 65}, "serve.max_events"),
        ({"text": "a" * 100_001}, "serve.max_chars"),
        ([], "body"),
    ],
)
def test_what_does_not_fit_is_told_where(server: Server, body: Any, said: str) -> None:
    assert_problem(server.predict(body), 422, said)


def test_half_a_surrogate_pair_is_no_text(server: Server) -> None:
    sent = server.client.post("/predict", content=b'{"text": "\\ud800"}', headers=JSON)
    assert_problem(sent, 422, "unicode")


def test_what_is_wrong_is_told_without_what_was_sent(server: Server) -> None:
    assert "secret" not in server.predict({"text": 7, "secret word": "secret"}).text.replace(
        "secret word", ""
    )


def test_a_body_that_is_too_large_is_refused_unread(server: Server) -> None:
    assert_problem(server.predict({"text": "a" * (1 << 20)}), 413, "serve.max_body")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"NaN"])
def test_what_is_no_json_is_a_problem_too(server: Server, content: bytes) -> None:
    sent = server.client.post("/predict", content=content, headers=JSON)
    assert sent.status_code in {400, 422}
    assert sent.headers["content-type"] == PROBLEM


def test_unknown_places_and_methods_are_problems_too(server: Server) -> None:
    assert_problem(server.client.get("/nowhere"), 404, "Not Found")
    assert_problem(server.client.get("/predict"), 405, "Method Not Allowed")


def test_a_fault_of_ours_is_a_problem_without_its_inside(server: Server) -> None:
    server.clerk.fails = True
    answer = server.predict({"text": "private"})
    assert_problem(answer, 500, "RuntimeError")
    assert "cannot" not in answer.text


def test_before_the_first_version() -> None:
    server = Server()
    assert_problem(server.predict({"text": "a"}), 503, "/readyz")
    assert_problem(server.client.get("/readyz"), 503, "not looked yet")
    assert server.client.get("/healthz").status_code == 200
    server.desk.stop()


def test_who_is_ready_says_who_answers_and_what_is_wrong(server: Server) -> None:
    server.watcher._standing = Standing(by="alias", trouble="the ledger is away", since=0.0)
    body = server.client.get("/readyz").json()
    assert (body["window"], body["version"], body["by"]) == (1, "1", "alias")
    assert body["trouble"] == "the ledger is away"
    assert body["trouble_seconds"] > 0


def test_a_dead_line_is_unhealthy(server: Server) -> None:
    server.desk.stop()
    assert_problem(server.client.get("/healthz"), 503, "restart")


def test_a_long_line_is_refused_with_a_time_to_come_back() -> None:
    server = Server(max_waiting=1, max_events=1).in_charge()
    server.clerk.gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.predict, {"text": "a"})
        while not server.desk.waiting:
            pass
        refused = server.predict({"text": "b"})
        server.clerk.gate.set()
        assert first.result(10).status_code == 200
    assert_problem(refused, 429, "wait already")
    assert int(refused.headers["retry-after"]) >= 1
    server.desk.stop()


def test_what_takes_too_long_is_given_up() -> None:
    server = Server(timeout="50ms").in_charge()
    server.clerk.gate = threading.Event()
    assert_problem(server.predict({"text": "a"}), 503, "serve.timeout")
    server.clerk.gate.set()
    server.desk.stop()


@contextmanager
def listened_to(server: Server) -> Iterator[Callable[[], socket.socket]]:
    """Serve over a real socket; what is given connects to it."""
    served = uvicorn.Server(uvicorn.Config(server.client.app, log_config=None, lifespan="off"))
    place = listening("127.0.0.1", 0)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(served.run, [place])
        try:
            yield lambda: socket.create_connection(place.getsockname()[:2], timeout=10)
        finally:
            served.should_exit = True
            ended.result(30)
            server.desk.stop()


BODY = b'{"text": "a"}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", BODY[:1]])
def test_a_body_that_does_not_come_is_given_up_and_the_connection_with_it(sent: bytes) -> None:
    with listened_to(Server(timeout="50ms").in_charge()) as connect, connect() as client:
        client.sendall(HEAD + sent)
        with client.makefile("rb") as heard:
            head, _, body = heard.read().partition(b"\r\n\r\n")  # to its end: it was closed
        assert head.startswith(b"HTTP/1.1 408 ")
        assert PROBLEM.encode() in head
        assert b"connection: close" in head.lower()  # at once, not when it has been idle for long
        assert "serve.timeout" in json.loads(body)["detail"]


def test_a_body_that_came_slowly_leaves_less_time_for_the_answer() -> None:
    """Of two whose bodies are whole at the same time, the one that began earlier is given up earlier."""
    server = Server(timeout="2s").in_charge()
    server.clerk.gate = threading.Event()
    with listened_to(server) as connect, connect() as slow, connect() as quick:
        slow.sendall(HEAD + BODY[:1])
        threading.Event().wait(1)
        slow.sendall(BODY[1:])
        quick.sendall(HEAD + BODY)
        first, _, _ = select.select([slow, quick], [], [], 30)
        assert first == [slow]
        for client in (slow, quick):
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        server.clerk.gate.set()


@pytest.mark.parametrize(
    ("header", "status"),
    [(None, 401), ("Bearer wrong", 401), ("Basic k3y", 401), ("Bearer k3y", 200), ("bearer k3y", 200)],
)
def test_a_key_where_one_is_asked_for(header: str | None, status: int) -> None:
    server = Server(api_key="k3y").in_charge()
    answer = server.predict({"text": "a"}, headers={"authorization": header} if header else {})
    assert answer.status_code == status
    if status == 401:
        assert_problem(answer, 401, "Bearer")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert server.client.get("/healthz").status_code == 200
    server.desk.stop()


def test_a_key_of_any_letters_is_the_bytes_it_is_written_in() -> None:
    server = Server(api_key="schlüssel").in_charge()
    for key, status in (("schlüssel", 200), ("schlussel", 401)):
        header = f"Bearer {key}".encode()
        assert server.predict({"text": "a"}, headers={"authorization": header}).status_code == status
    server.desk.stop()


def test_meters_count_what_happened(server: Server) -> None:
    server.predict({"events": [{"text": "ten signs."}, {"text": "a long text, all in all"}]})
    server.predict({"text": "a" * 100_001})
    lines = server.client.get("/metrics").text.splitlines()
    sha = version(server.clerk).snapshot.sha[:12]
    for line in (
        'priorflow_requests_total{status="200"} 1.0',
        'priorflow_requests_total{status="422"} 1.0',
        f'priorflow_answers_total{{snapshot="{sha}"}} 2.0',
        "priorflow_abstentions_total 1.0",
        "priorflow_ready 1.0",
        "priorflow_texts_waiting 0.0",
    ):
        assert line in lines


def test_openapi_has_examples_and_every_problem(server: Server) -> None:
    told = server.client.get("/openapi.json").json()
    predict = told["paths"]["/predict"]["post"]
    assert {"200", "400", "401", "408", "413", "422", "429", "503"} <= set(predict["responses"])
    assert all(PROBLEM in predict["responses"][s]["content"] for s in ("401", "413", "422", "429", "503"))
    assert predict["responses"]["429"]["content"][PROBLEM]["schema"]["required"] == [
        "title",
        "status",
        "detail",
    ]
    assert told["components"]["schemas"]["EventsIn"]["properties"]["events"]["maxItems"] == 64
    assert told["components"]["schemas"]["EventIn"]["properties"]["text"]["maxLength"] == 100_000
    example = told["components"]["schemas"]["EventIn"]["examples"][0]
    assert server.predict(example).status_code == 200
    json.dumps(told)
