"""Bodies in, JSON out, and errors as the Prefect server API tells them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from runlane.protocol.codec import field_of

from ..errors import Overloaded, Refused, StoreUnavailable

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]

#: Bytes of a body that creates one run: its parameters, and room for the rest.
MAX_BODY_BYTES: Final = 1024 * 1024
_encode = msgspec.json.Encoder().encode


def json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(_encode(body), status, headers, "application/json")


async def read_body(request: Request, decoder: msgspec.json.Decoder[T], limit: int = MAX_BODY_BYTES) -> T:
    """Read and check a body. Raises `HTTPException` 413, and `InvalidBody` for 422."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise HTTPException(413, f"the body has more than {limit} bytes")
    except ClientDisconnect as exc:
        raise HTTPException(400, "the body was cut off") from exc
    return decode_body(bytes(data), decoder)


def decode_body(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Check a body. Raises `InvalidBody`, naming the field."""
    try:
        data.decode()
        return decoder.decode(data)
    except msgspec.ValidationError as exc:
        raise InvalidBody(str(exc), field_of(str(exc)), "value_error", data) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidBody(f"not JSON: {exc}", None, "json_invalid", data) from exc
    except RecursionError as exc:
        raise InvalidBody("nested too deeply", None, "json_invalid", data) from exc


class InvalidBody(Exception):
    """A body, or a query, that is not what the route takes: 422."""

    def __init__(
        self, message: str, field: str | None, kind: str, data: bytes = b"", *, place: str = "body"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.kind = kind
        self.data = data
        self.place = place


def invalid_body(_request: Request, error: Exception) -> Response:
    """Render `InvalidBody`."""
    assert isinstance(error, InvalidBody)
    place = [error.place, *error.field.split(".")] if error.field else [error.place]
    detail = [{"loc": place, "msg": error.message, "type": error.kind}]
    message = "Invalid request received."
    sent = error.data[:1000].decode("utf-8", "replace")
    return json({"exception_message": message, "exception_detail": detail, "request_body": sent}, 422)


def http_error(_request: Request, error: Exception) -> Response:
    """Render `HTTPException`."""
    assert isinstance(error, HTTPException)
    headers = None if error.headers is None else dict(error.headers)
    return json({"detail": error.detail}, error.status_code, headers)


def unavailable(_request: Request, error: Exception) -> Response:
    """Render `StoreUnavailable` and `Overloaded`: nothing was done, come back."""
    seconds = error.retry_after if isinstance(error, Overloaded) else 1.0
    return json({"exception_message": "Service Unavailable"}, 503, {"Retry-After": f"{max(round(seconds), 1)}"})


def refused(_request: Request, error: Exception) -> Response:
    """Render `Refused`."""
    assert isinstance(error, Refused)
    return json({"detail": error.message, "code": error.code}, 409)


EXCEPTION_HANDLERS: Final[dict[Any, Any]] = {
    InvalidBody: invalid_body,
    HTTPException: http_error,
    StoreUnavailable: unavailable,
    Overloaded: unavailable,
    Refused: refused,
}
