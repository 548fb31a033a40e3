"""Errors as answers: each carries `detail`, and beside it what the Prefect server says."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..errors import Conflict, Invalid, NotFound, Overloaded, Refused, StoreUnavailable
from ..schemas.base import Error, ErrorDetail, InvalidRequest
from .rendering import json

#: Of what was sent, and of what is said about it, so much is repeated: an answer must not outgrow the question.
_MAX_ECHO: Final = 1000
_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[]+|\[[^\]]*\])")


class BadRequest(Exception):
    """A request whose `place` (body, query) says something impossible: `Invalid`, with where it stands."""

    def __init__(self, error: Invalid, place: str, data: bytes = b"") -> None:
        super().__init__(error.message)
        self.error = error
        self.place = place
        self.data = data


def _bad_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    loc = [error.place, *_steps(error.error.field)]
    detail = [ErrorDetail(loc=loc, msg=error.error.message[:_MAX_ECHO], type=error.error.kind)]
    body = InvalidRequest(
        detail=detail,
        exception_message="Invalid request received.",
        exception_detail=detail,
        request_body=_echo(error.data),
    )
    return json(body, 422)


def _steps(field: str | None) -> list[str | int]:
    """Return `state.tags[0]` as its steps."""
    return [int(step[1]) if step[1] else step[2][:_MAX_ECHO] for step in _STEP.finditer(field or "")]


def _echo(data: bytes) -> Any:
    """Return what was sent, if it is short; else, and if it is no JSON, as text."""
    if len(data) <= _MAX_ECHO:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(data)
    return data[:_MAX_ECHO].decode("utf-8", "replace")


def _invalid(request: Request, error: Exception) -> Response:
    """Render what a use case found wrong with what it was asked for."""
    assert isinstance(error, Invalid)
    return _bad_request(request, BadRequest(error, "body"))


def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = None if error.headers is None else dict(error.headers)
    return json(_error(error.detail), error.status_code, headers)


def _unavailable(_request: Request, error: Exception) -> Response:
    """Nothing was done, come back."""
    seconds = error.retry_after if isinstance(error, Overloaded) else 1.0
    return json(_error("Service Unavailable"), 503, {"Retry-After": f"{max(round(seconds), 1)}"})


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    body = Error(detail=error.message, exception_message=error.message, code=str(error.code))
    return json(body, 409)


def _not_found(_request: Request, error: Exception) -> Response:
    return json(_error(str(error)), 404)


def _conflict(_request: Request, error: Exception) -> Response:
    return json(_error(str(error)), 409)


def _failed(_request: Request, _error_: Exception) -> Response:
    """Somebody's mistake here: the log has it."""
    return json(_error("Internal Server Error"), 500)


def _error(message: str) -> Error:
    return Error(detail=message, exception_message=message)


EXCEPTION_HANDLERS: Final[dict[Any, Any]] = {
    BadRequest: _bad_request,
    Invalid: _invalid,
    HTTPException: _http_error,
    StoreUnavailable: _unavailable,
    Overloaded: _unavailable,
    Refused: _refused,
    NotFound: _not_found,
    Conflict: _conflict,
    Exception: _failed,
}
