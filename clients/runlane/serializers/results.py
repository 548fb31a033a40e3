"""The result of a function, as its annotation says."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..protocol.limits import MAX_PAYLOAD_BYTES
from ..protocol.payloads import ABSENT
from .serializer import Serializer, seal, unseal
from .values import ValueType, check, dump, load

_WHAT: Final = "the result"


class Results:
    """How one function's results are packed and unpacked."""

    def __init__(self, annotation: Any = Any, serializer: Serializer | None = None) -> None:
        self._type = ValueType(annotation)
        self._serializer = serializer

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
