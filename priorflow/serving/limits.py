"""What is turned away before anything is parsed: bodies too large or too slow, and strangers."""

from __future__ import annotations

import asyncio
import hmac
import time
from http import HTTPStatus
from typing import Final, final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from priorflow.serving.problems import Problem, response

_BEGUN: Final = "priorflow_begun"  # in a request's scope


@final
class BodyLimit:
    """Answers 413 once a body has more than `most` bytes, and 408 once it takes longer than `within_s`."""

    def __init__(self, app: ASGIApp, most: int, within_s: float) -> None:
        self._app, self._most, self._within_s = app, most, within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, which has been counted and timed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_BEGUN] = time.monotonic()
        try:
            async with asyncio.timeout(self._within_s):
                body = await _body(receive, self._most)
        except TimeoutError:
            await _too_slow(self._within_s)(scope, receive, send)
        except Problem as large:
            await response(large.status, large.detail)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _again(body, receive), send)


def waited_s(request: Request) -> float:
    """Return how long ago a request began, its body included."""
    return time.monotonic() - float(request.scope[_BEGUN])


async def _body(receive: Receive, most: int) -> bytes | None:
    """Return a whole body, whatever its header says of it; None if the client has gone."""
    taken, body, more = 0, list[bytes](), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body.append(message.get("body", b""))
        taken, more = taken + len(body[-1]), bool(message.get("more_body"))
        if taken > most:
            detail = f"a request may have {most} bytes (serve.max_body); send fewer events"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
    return b"".join(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Say a body that was read once more, then what else comes."""
    whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def once() -> Message:
        nonlocal whole
        if whole is None:
            return await receive()
        message, whole = whole, None
        return message

    return once


def _too_slow(within_s: float) -> Response:
    """Refuse, and have the connection closed: what is still to come of this body is no request."""
    detail = f"the body was not there within {within_s:g} s (serve.timeout); send it at once"
    return response(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"})


def require_key(request: Request, key: str | None) -> None:
    """Raise 401 unless the request carries the key, if there is one."""
    if key is None:
        return
    # What stands in a header is bytes, which come here as latin-1.
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(said.encode("latin-1"), key.encode()):
        detail = "this server asks for a key; send it as `Authorization: Bearer KEY`"
        raise Problem(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
