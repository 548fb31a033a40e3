"""The address that a broker listens on.

It does from its first moments, before it has imported what it is made of: whoever connects meanwhile waits to be
accepted, and is served as soon as the broker is ready. Being refused he would try again, and again.
"""

from __future__ import annotations

import socket
from typing import Final

from ..errors import StartupError
from .buffers import SEND_BUFFER

#: Connections that may wait to be accepted.
_BACKLOG: Final = 2048


def bind(host: str, port: int) -> socket.socket:
    """Return a listening address. Port 0 takes a free one. Raises `StartupError` in one line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named: without it answers wait for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # its connections inherit it
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(_BACKLOG)  # here, because uvloop takes a port that is in use for a success
    except (OSError, TypeError, ValueError) as exc:  # the last two for a name that is no name
        listener.close()
        raise StartupError(f"cannot listen on {host}:{port}: {getattr(exc, 'strerror', None) or exc}") from exc
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return where clients find a listener."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
