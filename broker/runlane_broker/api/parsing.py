"""Requests in: versions, bodies and queries, read and checked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from runlane.protocol.ids import is_id

from ..errors import Invalid
from .complaints import invalid
from .errors import BadRequest

#: Bytes of a body, where a route does not say otherwise: one run's parameters, and room for the rest.
MAX_BODY_BYTES: Final = 1024 * 1024
#: A body that has not come within this time will not be waited for. Seconds.
BODY_SECONDS: Final = 30.0
#: The versions of the Prefect server API that this one can stand in for begin here.
_OLDEST_VERSION: Final = (0, 8, 0)
_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", re.ASCII)
_NUL: Final = b"\\u0000"


def check_version(version: str | None) -> None:
    """Refuse, with 400, a client that asks for a version of the API that is none, or too old."""
    if version is None:
        return
    parts = _VERSION.fullmatch(version)
    if parts is None:
        raise HTTPException(400, "Invalid X-PREFECT-API-VERSION header format. It has to be three numbers: x.y.z")
    if tuple(int(part) for part in parts.groups()) < _OLDEST_VERSION:
        needed = ".".join(map(str, _OLDEST_VERSION))
        message = (
            f"The request specified API version {version} but this server requires version {needed} or higher."
        )
        raise HTTPException(400, message)


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body. Raises `HTTPException`: 413 beyond `limit` bytes, at once; 408 for one that is too slow."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > limit:
                    raise HTTPException(413, f"the body has more than {limit} bytes")
    except ClientDisconnect as exc:
        raise HTTPException(400, "the body was cut off") from exc
    except TimeoutError as exc:
        message = f"the body has not come within {BODY_SECONDS:g} s"
        raise HTTPException(408, message, {"Connection": "close"}) from exc
    return bytes(data)


def decode_body(data: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Check a body, whatever it says of its type. Raises `BadRequest`, naming the field."""
    try:
        if not data.strip():
            raise Invalid("a body is needed", None, "json_invalid")
        try:
            data.decode()
            body = decoder.decode(data)
        except msgspec.ValidationError as exc:
            raise invalid(exc, decoder.type) from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise Invalid(f"not JSON: {exc}", None, "json_invalid") from exc
        except RecursionError as exc:
            raise Invalid("nested too deeply", None, "json_invalid") from exc
        if _NUL in data:
            _check_nul(body)
        check(body)
    except Invalid as exc:
        raise BadRequest(exc, "body", data) from exc
    return body


def decode_query(params: Mapping[str, str], type_: type[Any]) -> Any:
    """Check a query. Raises `BadRequest`, naming the parameter."""
    try:
        try:
            # In a URL people write ids as they please; stored they are in lower case.
            values = {name: value.lower() if is_id(value.lower()) else value for name, value in params.items()}
            query = msgspec.convert(values, type_, strict=False)
        except msgspec.ValidationError as exc:
            raise invalid(exc, type_) from exc
        _check_nul(query)
        check(query)
    except Invalid as exc:
        raise BadRequest(exc, "query") from exc
    return query


def check(body: Any) -> None:
    """Have a body look at what its types alone cannot say. Raises `Invalid`."""
    own = getattr(body, "check", None)
    if own is not None:
        own()


def _check_nul(body: Any) -> None:
    """Refuse text with a NUL, which not every database can keep. (Payloads may have it: they are only bytes.)"""
    for place, text in _texts(body, ""):
        if "\0" in text:
            raise Invalid("NUL is not allowed here", place.lstrip(".") or None)


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield all text in a body, and where it stands."""
    match value:
        case str():
            yield place, value
        case msgspec.Struct():
            for name in value.__struct_fields__:
                yield from _texts(getattr(value, name), f"{place}.{name}")
        case dict():
            for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
                yield from _texts(key, place)
                yield from _texts(item, f"{place}.{key}")
        case list() | tuple():
            for i, item in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
                yield from _texts(item, f"{place}[{i}]")
        case _:
            return
