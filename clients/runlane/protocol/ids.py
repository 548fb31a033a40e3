"""Ids: UUID version 7 (RFC 9562), as lower-case text with hyphens, which sorts by time of creation."""

from __future__ import annotations

import os
import re
import time
from typing import Final

#: What an id looks like on the wire: any UUID in its canonical form.
ID_PATTERN: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"
_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    """Say whether the text is a UUID in canonical form (lower case, hyphens)."""
    return _ID.match(text) is not None


def uuid7(time_ns: int | None = None, random: int | None = None) -> str:
    """Mint an id.

    The 12 bits after the millisecond hold its fraction (RFC 9562 section 6.2, method 3), so that ids of one
    process sort by creation without any state. `time_ns` and the 62 bits of `random` are for tests and
    simulation; by default they come from the clock and the operating system.
    """
    now = time.time_ns() if time_ns is None else time_ns
    bits = int.from_bytes(os.urandom(8), "big") if random is None else random
    ms, rest = divmod(now, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    tail = (bits & 0x3FFF_FFFF_FFFF_FFFF) | 0x8000_0000_0000_0000
    text = f"{(ms << 16) | 0x7000 | fraction:016x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
