"""The server: what follows the champion, the application, and uvicorn around them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Final, final

import uvicorn
from fastapi import FastAPI

from priorflow.config import Settings
from priorflow.console import Console
from priorflow.serving.app import application
from priorflow.serving.books import serving_folder
from priorflow.serving.comparisons import Comparisons
from priorflow.serving.desk import Desk
from priorflow.serving.following import following
from priorflow.serving.gauges import Gauges
from priorflow.serving.listening import listening
from priorflow.serving.shadow import Shadow, shadowing
from priorflow.serving.watcher import Watcher

_GRACE_S: Final = 10  # for requests under way when the server is told to stop


@final
@dataclass(frozen=True, slots=True)
class Service:
    """A server's parts."""

    app: FastAPI
    desk: Desk
    watcher: Watcher
    shadow: Shadow | None


@contextmanager
def opened(settings: Settings, console: Console) -> Iterator[Service]:
    """Answer while the context is open."""
    record = Comparisons(serving_folder(settings), most_bytes=settings.serve.shadow_record)
    most, patience_s = settings.serve.max_waiting, settings.serve.max_wait / 1000
    with (
        following(settings, console, most=most, patience_s=patience_s) as (desk, watcher),
        shadowing(settings, console, record.add, grace_s=0.0) as shadow,
    ):
        gauges = Gauges(desk, watcher, shadow)
        app = application(
            settings,
            desk,
            watcher,
            gauges,
            version=installed("priorflow"),
            console=console,
            shadow=shadow,
        )
        yield Service(app, desk, watcher, shadow)


def serve(settings: Settings, console: Console) -> None:
    """Answer over HTTP until told to stop."""
    with opened(settings, console) as service:
        config = uvicorn.Config(
            service.app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S
        )
        server = uvicorn.Server(config)
        # Before it is said: whoever calls now waits until we answer.
        socket = listening(settings.serve.host, settings.serve.port)
        host, port = socket.getsockname()[:2]
        console.say(f"answering at http://{host}:{port}", event="serving", host=host, port=port)
        for number in (signal.SIGTERM, signal.SIGINT):  # the server raises again what it has obeyed
            signal.signal(number, lambda *_: None)
        server.run([socket])
    console.say("stopped", event="stopped")
