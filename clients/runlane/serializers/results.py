"""The result of a function, as its annotation says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, Self

import msgspec

from ..protocol.limits import MAX_PAYLOAD_BYTES
from ..protocol.payloads import ABSENT
from .hints import hints_of
from .serializer import Serializer, seal, unseal
from .values import ValueType, check, dump, load

_WHAT: Final = "the result"


class Results:
    """How one function's results are packed and unpacked."""

    def __init__(self, annotation: Any = Any, serializer: Serializer | None = None) -> None:
        self._annotation: Callable[[], Any] = lambda: annotation
        self._serializer = serializer

    @classmethod
    def of(cls, function: Callable[..., Any], serializer: Serializer | None = None) -> Self:
        """Return those of a function. As with its arguments, the annotation is read when it is first needed."""
        results = cls(Any, serializer)
        results._annotation = lambda: hints_of(function).get("return", Any)
        return results

    @cached_property
    def _type(self) -> ValueType:
        return ValueType(self._annotation())

    def pack(self, value: object, limit: int = MAX_PAYLOAD_BYTES) -> msgspec.Raw:
        """Return the result as a payload of at most `limit` bytes. Raises `PayloadError`, `PayloadTooLarge`."""
        if self._serializer is None:
            return dump(value, _WHAT, limit)
        return check(seal(self._serializer, value, _WHAT), _WHAT, limit)

    def unpack(self, payload: msgspec.Raw) -> Any:
        """Return the result as annotated; None where there is no payload. Raises `PayloadError`."""
        if payload == ABSENT:
            return None
        value = load(payload, _WHAT)
        if self._serializer is not None:
            value = unseal(self._serializer, value, _WHAT)
        return self._type.convert(value, _WHAT)


#: A result of which nothing is known.
ANY_RESULT: Final = Results()
