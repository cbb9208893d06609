"""Somebody who takes webhooks: a real HTTP server on loopback that can be busy, slow, away and forgetful."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What came in; `says` are the next answers, and 204 once they are used up."""

    port: int = 0
    says: list[int] = field(default_factory=list)
    slow_s: float = 0.0
    posts: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)  # that were taken
    tried: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/s3cret?token=t0ken"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body, _ in self.posts]


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """Listen while the context is open, on any port or on one that was had before."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.tried += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = made.says.pop(0) if made.says else 204
            time.sleep(made.slow_s)
            if status < 300:
                made.posts.append((body, {k.lower(): v for k, v in self.headers.items()}))
            self.send_response(status)
            if status in {301, 302, 307}:
                self.send_header("Location", f"http://127.0.0.1:{made.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            made.posts.append((b'"followed"', {}))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
