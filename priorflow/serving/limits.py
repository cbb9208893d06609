"""What is turned away before anything is parsed: bodies that are too large, and strangers."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from priorflow.serving.problems import Problem, response


@final
class BodyLimit:
    """Answers 413 once a body has more than `most` bytes, whatever its header says."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its bytes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken, body, more = 0, list[bytes](), True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return
            body.append(message.get("body", b""))
            taken, more = taken + len(body[-1]), bool(message.get("more_body"))
            if taken > self._most:
                refusal = response(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"a request may have {self._most} bytes (serve.max_body); send fewer events",
                )
                await refusal(scope, receive, send)
                return
        whole: Message | None = {"type": "http.request", "body": b"".join(body), "more_body": False}

        async def once() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        await self._app(scope, once, send)


def require_key(request: Request, key: str | None) -> None:
    """Raise 401 unless the request carries the key, if there is one."""
    if key is None:
        return
    # What stands in a header is bytes, which come here as latin-1.
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(said.encode("latin-1"), key.encode()):
        detail = "this server asks for a key; send it as `Authorization: Bearer KEY`"
        raise Problem(HTTPStatus.UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})
