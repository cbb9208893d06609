"""The HTTP side: answers, decisions, and how the server is; OpenAPI of all that at `/openapi.json`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Body, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from posterior.family import ONE_TASK
from priorflow.config import Settings
from priorflow.console import Console, Silent
from priorflow.page import Kept
from priorflow.sections_serving import ServeSettings
from priorflow.serving import decisions, problems
from priorflow.serving.comparing import Heard
from priorflow.serving.desk import Desk, Full, NobodyInCharge, Told
from priorflow.serving.gauges import Gauges
from priorflow.serving.limits import BodyLimit, require_key, waited_s
from priorflow.serving.problems import Problem
from priorflow.serving.shadow import Shadow, tile
from priorflow.serving.watcher import Watcher
from priorflow.serving.wire import AnswerOut, AnswersOut, Asked, EventIn, EventsIn, answered, named

_REFUSALS: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


class ReadyOut(BaseModel):
    """Who answers, who named it, and whether that could be looked up just now."""

    snapshot: str
    version: str | None
    window: int
    chain: str
    by: str | None
    trouble: str | None
    """Why the champion cannot be looked up; the last good version answers meanwhile."""
    trouble_seconds: float | None


def application(
    settings: Settings,
    desk: Desk,
    watcher: Watcher,
    gauges: Gauges,
    *,
    version: str,
    console: Console | None = None,
    shadow: Shadow | None = None,
) -> FastAPI:
    """Return the application; who starts desk, watcher and shadow is who made them."""
    app = FastAPI(
        title="priorflow",
        version=version,
        description=__doc__,
        separate_input_output_schemas=False,
        docs_url=None,  # these two pages load scripts of somebody else's
        redoc_url=None,
    )
    app.openapi = lambda: _with_limits(FastAPI.openapi(app), settings.serve)  # type: ignore[method-assign] # FastAPI's documented way
    problems.install(app)
    app.add_middleware(BodyLimit, most=settings.serve.max_body, within_s=settings.serve.timeout / 1000)
    _predictions(app, settings, desk, gauges, shadow)
    _states(app, desk, watcher, gauges)
    kept = Kept(settings, also=lambda: [] if shadow is None else [tile(shadow.standing)])
    decisions.offer(app, settings, console or Silent(), decided=kept.forget)
    _page(app, kept, desk, watcher)
    return app


def _with_limits(told: dict[str, Any], serve: ServeSettings) -> dict[str, Any]:
    """Return OpenAPI with this server's own limits in it: they are settings, so no model knows them."""
    schemas = told["components"]["schemas"]
    schemas["EventIn"]["properties"]["text"]["maxLength"] = serve.max_chars
    schemas["EventsIn"]["properties"]["events"]["maxItems"] = serve.max_events
    return told


def _predictions(app: FastAPI, settings: Settings, desk: Desk, gauges: Gauges, shadow: Shadow | None) -> None:
    key, serve = settings.serve.key(), settings.serve

    @app.post(
        "/predict",
        responses=problems.documented(*_REFUSALS),
        response_model=AnswerOut | AnswersOut,
        dependencies=[] if key is None else [Depends(decisions.BEARER)],
    )
    async def predict(request: Request, body: Annotated[Asked, Body()]) -> AnswerOut | AnswersOut:
        """Answer one text, or several by one version."""
        begun = time.perf_counter()
        try:
            require_key(request, key)
            events = body.events if isinstance(body, EventsIn) else [body]
            _fits(events, serve.max_events, serve.max_chars)
            told = await _told(desk, events, serve.timeout / 1000, waited_s(request))
        except Problem as refused:
            gauges.refused(refused.status)
            raise
        answers = [answered(named(e), a, told.version) for e, a in zip(events, told.answers, strict=True)]
        gauges.answered(told, sum(a.abstain for a in answers), time.perf_counter() - begun)
        if shadow is not None:
            _shown(shadow, events, answers, told)
        return AnswersOut(answers=answers) if isinstance(body, EventsIn) else answers[0]


def _shown(shadow: Shadow, events: Sequence[EventIn], answers: Sequence[AnswerOut], told: Told) -> None:
    """Have a shadow asked about events that are answered; that waits for nothing."""
    each_s = told.seconds / len(answers)
    for event, out, answer in zip(events, answers, told.answers, strict=True):
        heard = Heard(version=told.version, answer=answer, seconds=each_s)
        shadow.see(out.event_id, _asked(event), heard, at_ms=time.time_ns() // 1_000_000)


def _asked(event: EventIn) -> tuple[str, str]:
    return event.text, event.task or ONE_TASK


def _fits(events: Sequence[EventIn], most: int, chars: int) -> None:
    if len(events) > most:
        detail = f"{len(events)} events; at most {most} in a request (serve.max_events)"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    for place, event in enumerate(events):
        if len(event.text) > chars:
            detail = f"event {place}: {len(event.text)} characters; at most {chars} (serve.max_chars)"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


async def _told(desk: Desk, events: Sequence[EventIn], timeout_s: float, begun_s: float) -> Told:
    try:
        asked = desk.ask([_asked(event) for event in events])
        return await asyncio.wait_for(asyncio.wrap_future(asked), timeout_s - begun_s)
    except Full as full:
        after = {"Retry-After": str(max(1, math.ceil(full.after_s)))}
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, str(full), after) from full
    except NobodyInCharge as nobody:
        detail = "no version answers yet; /readyz says what is awaited"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "1"}) from nobody
    except TimeoutError as slow:
        detail = f"not answered within {timeout_s:g} s (serve.timeout); send fewer events, or try again"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "1"}) from slow


def _states(app: FastAPI, desk: Desk, watcher: Watcher, gauges: Gauges) -> None:
    @app.get("/healthz", responses=problems.documented(HTTPStatus.SERVICE_UNAVAILABLE))
    async def healthz() -> dict[str, str]:
        """Tell whether the process does its work; restart it if not."""
        if not desk.alive():
            detail = "the thread that asks the model has died; restart this server"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
        return {"status": "ok"}

    @app.get("/readyz", responses=problems.documented(HTTPStatus.SERVICE_UNAVAILABLE))
    async def readyz() -> ReadyOut:
        """Tell who answers; 503 while nobody does."""
        standing, version = watcher.standing, desk.version
        if version is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, standing.trouble or "loading", {"Retry-After": "1"})
        snapshot = version.snapshot
        return ReadyOut(
            snapshot=snapshot.sha,
            version=version.name,
            window=snapshot.index,
            chain=snapshot.chain,
            by=standing.by,
            trouble=standing.trouble,
            trouble_seconds=None if standing.trouble is None else time.time() - standing.since,
        )

    @app.get("/metrics", response_class=Response, responses={200: _TEXT})
    async def metrics() -> Response:
        """Return meters in Prometheus' text format."""
        return Response(gauges.page(), media_type=gauges.media_type)


def _page(app: FastAPI, kept: Kept, desk: Desk, watcher: Watcher) -> None:
    @app.get("/", response_class=HTMLResponse)
    def page(response: Response) -> str:
        """Show where the chain stands, for a person."""
        version = desk.version
        sha = None if version is None else version.snapshot.sha
        response.headers.update(kept.headers)
        return kept.page(answering=sha, trouble=watcher.standing.trouble)


_TEXT: Final[dict[str, Any]] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
