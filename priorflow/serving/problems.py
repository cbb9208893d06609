"""What went wrong, as RFC 9457 has it: `application/problem+json` for every error, whoever noticed it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

MEDIA_TYPE: Final = "application/problem+json"
_WAY: Final = ("body", "one", "many")  # places that are ours, not the sender's


class ProblemOut(BaseModel):
    """An error: what, where, and what to do about it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class Problem(Exception):
    """An answer other than the one that was asked for."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a problem as a response."""
    said = ProblemOut(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(
        said.model_dump(), status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of these statuses."""
    schema = ProblemOut.model_json_schema()
    return {
        int(status): {"description": status.phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Have every error told as a problem."""

    @app.exception_handler(Problem)
    async def _ours(_: Request, problem: Problem) -> JSONResponse:
        return response(problem.status, problem.detail, problem.headers)

    @app.exception_handler(HTTPException)
    async def _theirs(_: Request, error: HTTPException) -> JSONResponse:
        return response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def _unfit(_: Request, error: RequestValidationError) -> JSONResponse:
        return response(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(map(_told, error.errors()[:5])))

    @app.exception_handler(Exception)
    async def _ourselves(_: Request, error: Exception) -> JSONResponse:
        return response(HTTPStatus.INTERNAL_SERVER_ERROR, f"a fault of priorflow: {type(error).__name__}")


def _told(error: Mapping[str, Any]) -> str:
    """Say what is wrong and where; never the content, it may be private."""
    where = ".".join(str(part) for part in error["loc"] if part not in _WAY) or "body"
    return f"{where}: {error['msg']}"
