"""Any value to JSON and, by the type that an annotation names, back.

Sent: what orjson and msgspec know (dataclasses, structs, attrs classes, enums, dates, times, UUID, Decimal,
sets, named tuples …), bytes as base64, paths as text, and whatever has pydantic's `model_dump`. Integers may
have any size. Refused, never bent: NaN and infinities (JSON has none), and objects without a JSON form.

Read: by the annotation, strictly at first and, where that fails, leniently (`"5"` for an `int`). Without one,
or with one that msgspec cannot read (a protocol …), the plain JSON value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from enum import Enum
from pathlib import PurePath
from types import UnionType
from typing import Any, Final, Union, cast, get_args, get_origin

import msgspec
import orjson

from ..errors import PayloadError, PayloadTooLarge
from ..protocol.errors import FrameRefused
from ..protocol.limits import MAX_PAYLOAD_BYTES
from ..protocol.payloads import check_payload

#: Where this matches, a number may exceed 64 bits, which orjson would turn into a float.
_MAYBE_BIG = re.compile(rb"\d{19}")
#: Annotations that say nothing about the JSON value.
_ANYTHING: Final = (Any, object)
#: A value that is one of these as annotated is taken as it is (for Python, a bool is an int).
_PLAIN: Final[tuple[type[Any], ...]] = (int, str, bool, float, dict, list)
#: What msgspec knows, but not subclasses of it.
_BASES: Final[frozenset[Any]] = frozenset({str, int, float, dict, list, tuple})


def dump(value: object, what: str, limit: int = MAX_PAYLOAD_BYTES) -> msgspec.Raw:
    """Return the value as JSON. `what` names it in errors; `limit` is in bytes.

    Raises `PayloadTooLarge`, or `PayloadError` where it has no JSON form or nests too deeply.
    """
    return check(encode(value, what), what, limit)


def load(payload: msgspec.Raw | bytes, what: str) -> Any:
    """Return the plain JSON value. Raises `PayloadError`."""
    return decode(bytes(payload), what)


def check(data: bytes, what: str, limit: int = MAX_PAYLOAD_BYTES) -> msgspec.Raw:
    """Return JSON text as a payload. Raises `PayloadTooLarge`, or `PayloadError` where it nests too deeply."""
    if len(data) > limit:
        kib = f" ({limit // 1024} KiB)" if limit >= 1024 else ""
        raise PayloadTooLarge(f"{what}: {len(data)} bytes of JSON; at most {limit}{kib}")
    payload = msgspec.Raw(data)
    try:
        check_payload(payload, what, limit)
    except FrameRefused as exc:
        raise PayloadError(exc.message) from None
    return payload


def encode(value: object, what: str) -> bytes:
    """Return the value as JSON text of any size. Raises `PayloadError`."""
    try:
        data = orjson.dumps(value, default=_builtins, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:
        _check_keys(value, what)
        return _encode_slowly(value, what)
    # orjson writes NaN as null; the slow way refuses it.
    return _encode_slowly(value, what) if value is not None and b"null" in data else data


def decode(data: bytes, what: str) -> Any:
    """Return the plain JSON value of a text. Raises `PayloadError`."""
    try:
        return json.loads(data) if _MAYBE_BIG.search(data) else orjson.loads(data)
    except (ValueError, RecursionError) as exc:
        raise PayloadError(f"{what}: no JSON that can be read: {exc}") from exc


class ValueType:
    """The type that an annotation names, to convert plain JSON values to."""

    def __init__(self, annotation: Any) -> None:
        self._type = annotation
        self._anything = any(annotation is plain for plain in _ANYTHING)
        self._plain: Any = next((plain for plain in _PLAIN if annotation is plain), None)
        is_union = get_origin(annotation) in (Union, UnionType)
        self._arms = tuple(ValueType(arm) for arm in get_args(annotation)) if is_union else ()

    def __repr__(self) -> str:
        return f"<ValueType {self._type!r}>"

    def convert(self, value: Any, what: str) -> Any:
        """Return the value as this type. Raises `PayloadError` when it is none of it."""
        if self._anything or (self._plain is not None and isinstance(value, self._plain)):
            return value
        try:
            return self._convert(value)
        except msgspec.ValidationError as exc:
            raise PayloadError(f"{what}: {exc}") from exc
        except (TypeError, NotImplementedError):  # a type that msgspec does not read
            if isinstance(self._type, type) and issubclass(self._type, Enum):
                return _member(self._type, value, what)
            return self._first_arm(value, what) if self._arms else value

    def _convert(self, value: Any) -> Any:
        try:
            return msgspec.convert(value, self._type, dec_hook=_decode_other, str_keys=True)
        except msgspec.ValidationError:
            # "5" for an int: easily meant, and not to be misread.
            return msgspec.convert(value, self._type, dec_hook=_decode_other, str_keys=True, strict=False)

    def _first_arm(self, value: Any, what: str) -> Any:
        """Return the value as the first type of the union that takes it; one that it has already goes first."""
        if any(type(value) is arm._type for arm in self._arms):
            return value
        for arm in self._arms:
            try:
                return arm.convert(value, what)
            except PayloadError:
                continue
        raise PayloadError(f"{what}: Expected `{self._type}`, got `{type(value).__name__}`")


def _member(enum: type[Enum], value: object, what: str) -> Enum:
    """Return the member that has this value: msgspec reads enums of texts, or of integers, alone."""
    for member in enum:
        if decode(encode(member.value, what), what) == value:
            return member
    raise PayloadError(f"{what}: {value!r} is no value of {enum.__name__}")


def _encode_slowly(value: object, what: str) -> bytes:
    """Encode what orjson does not: integers beyond 64 bits, keys that are no strings."""
    try:
        text = json.dumps(_builtins(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, NotImplementedError, RecursionError) as exc:
        raise PayloadError(f"{what}: {exc}") from exc


def _check_keys(value: object, what: str) -> None:
    """Refuse keys that would be the same text. Raises `PayloadError`."""
    try:
        rest = [msgspec.to_builtins(value, enc_hook=_encode_other)]
    except (TypeError, ValueError, NotImplementedError, RecursionError):
        return  # whoever encodes it says why it cannot be
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            members = cast("dict[Any, Any]", part)
            if len({key if isinstance(key, str) else json.dumps(key) for key in members}) < len(members):
                raise PayloadError(f"{what}: two keys of a dict are the same text in JSON, such as 1 and '1'")
            rest += members.values()
        elif isinstance(part, list | tuple):
            rest += cast("list[Any]", part)


def _builtins(value: object) -> Any:
    # Sets are sorted where that can be, or the same call would not have the same bytes in another process.
    if isinstance(value, Set):
        try:
            return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_other, order="deterministic")
        except TypeError:
            pass
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_other)


def _encode_other(value: Any) -> Any:
    """Say what msgspec does not know in terms that it does."""
    if isinstance(value, PurePath):
        return str(value)
    for base in type(value).__mro__:
        if base in _BASES:
            return base(value)
    if callable(getattr(value, "model_dump", None)):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    raise NotImplementedError(f"no JSON form is known for {type(value).__module__}.{type(value).__qualname__}")


def _decode_other(type_: Any, value: Any) -> Any:
    """Make what msgspec does not know; the annotation is some class, or some generic of one."""
    if isinstance(type_, type):
        cls = cast("type[Any]", type_)
        if issubclass(cls, PurePath):
            return cls(value)
        validate = getattr(cls, "model_validate", None)
        if callable(validate):
            return validate(value)
    raise NotImplementedError
