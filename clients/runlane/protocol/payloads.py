"""Payloads: `parameters`, `result` and `error` travel as opaque JSON bytes, checked for size and depth only.

They are never parsed and written again: parsing would turn integers beyond 64 bits into floats, and could
accept what cannot be sent again.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from .errors import ErrorCode, FrameRefused
from .limits import MAX_DEPTH, MAX_PAYLOAD_BYTES

#: The value of an optional payload field that is absent. (An explicit `null` is `Raw(b"null")`.)
ABSENT: Final = msgspec.Raw()

_BRACKETS_OUTSIDE_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_OPENING = b"[{"
_CLOSING = b"]}"


def check_payload(payload: msgspec.Raw, field: str, limit: int = MAX_PAYLOAD_BYTES) -> None:
    """Refuse a payload of more than `limit` bytes or of more than `MAX_DEPTH` nested levels.

    Raises `FrameRefused` (`payload_too_large`, `payload_too_deep`) naming the field and the limit.
    """
    data = bytes(payload)
    if len(data) > limit:
        raise FrameRefused(ErrorCode.TOO_LARGE, f"{field} has {len(data)} bytes; at most {limit}", field=field)
    if deeper_than(data, MAX_DEPTH):
        raise FrameRefused(ErrorCode.TOO_DEEP, f"{field} nests deeper than {MAX_DEPTH} levels", field=field)


def deeper_than(data: bytes, depth: int) -> bool:
    """Say whether the JSON text nests arrays and objects deeper than `depth`. The text must be valid JSON."""
    if data.count(b"[") + data.count(b"{") <= depth:
        return False
    level = 0
    for match in _BRACKETS_OUTSIDE_STRINGS.finditer(data):
        token = match[0]
        if token in _OPENING:
            level += 1
            if level > depth:
                return True
        elif token in _CLOSING:
            level -= 1
    return False
