"""Which client tasks submit through: the one place of the SDK that keeps state per process.

Per event loop, the client entered last with `async with`, or else one made from the environment when first
needed. That one needs no closing: `asyncio.run` cancels its task at the end, which closes the connection. The
map is keyed weakly by loop; what a closed loop leaves behind is dropped when the next one looks.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from .client import Client

_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Client]] = WeakKeyDictionary()
_lock = threading.Lock()  # loops of several threads share the map


def enter(client: Client) -> None:
    """Make this the running loop's client."""
    with _lock:
        _drop_closed()
        _clients.setdefault(asyncio.get_running_loop(), []).append(client)


def leave(client: Client) -> None:
    """Forget the client; the one entered before it is the loop's again."""
    with _lock:
        clients = _clients.get(asyncio.get_running_loop(), [])
        if client in clients:
            clients.remove(client)


def innermost() -> Client | None:
    """Return the running loop's client, if it has one."""
    clients = _clients.get(asyncio.get_running_loop())
    return clients[-1] if clients else None


def _drop_closed() -> None:
    # A client refers to its loop, so that the weak key alone would keep both.
    for loop in [loop for loop in _clients if loop.is_closed()]:
        del _clients[loop]
