"""The page beside a run: `/`, `/healthz` and, with a key, its buttons, in a thread of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Final

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from priorflow.config import Settings
from priorflow.console import Console
from priorflow.page import Kept
from priorflow.serving import decisions, problems
from priorflow.serving.limits import BodyLimit
from priorflow.serving.listening import listening

_ENDS_S: Final = 5.0


@contextmanager
def looked_at(settings: Settings, port: int, console: Console) -> Iterator[None]:
    """Show the page at `serve.host` and this port (0: any that is free) while the context is open."""
    config = uvicorn.Config(application(settings, console), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    socket = listening(settings.serve.host, port)
    thread = Thread(target=server.run, args=([socket],), name="page", daemon=True)
    thread.start()
    at = f"http://{settings.serve.host}:{socket.getsockname()[1]}"
    console.say(f"the page is at {at}", event="page", address=at)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_ENDS_S)


def application(settings: Settings, console: Console) -> FastAPI:
    """Return what answers: a page, whether the process lives, and what the page's buttons ask for."""
    app, kept = FastAPI(title="priorflow run", openapi_url=None), Kept(settings)
    problems.install(app)
    app.add_middleware(BodyLimit, most=settings.serve.max_body, within_s=settings.serve.timeout / 1000)
    decisions.offer(app, settings, console, decided=kept.forget)

    @app.get("/", response_class=HTMLResponse)
    def page(response: Response) -> str:
        response.headers.update(kept.headers)
        return kept.page()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return app
