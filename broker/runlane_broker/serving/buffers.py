"""How much the system keeps for a peer that does not take it: what may be on its way to somebody far off.

It would be megabytes, and the longer until one notices that a peer takes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

#: Bytes, about (Linux takes twice as many, for what it needs itself).
SEND_BUFFER: Final = 256 * 1024
#: For one that has not taken anything yet, on a WebSocket. What a hostile peer has made for it costs us that much.
STRANGERS_BUFFER: Final = 16 * 1024


def keep(transport: asyncio.BaseTransport, size: int) -> None:
    """Have the system keep so many bytes for the peer of a connection."""
    of: socket.socket | None = transport.get_extra_info("socket")
    if of is not None:
        with suppress(OSError, ValueError):  # it has gone meanwhile (the latter is uvloop's)
            of.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
