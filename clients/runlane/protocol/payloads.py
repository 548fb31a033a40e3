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
#: It is told by identity: another empty `Raw` would be written, as nothing, and spoil the frame.
ABSENT: Final = msgspec.Raw()

_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TO_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


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
    brackets = _STRINGS.sub(b"", data).translate(_TO_BRACKETS, _NO_BRACKETS)
    for _ in range(depth):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"")  # takes away the innermost level everywhere
    return bool(brackets)
