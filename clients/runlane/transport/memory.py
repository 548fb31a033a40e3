"""Brokers of this very process, which are reached without a network: those of `runlane.testing`."""

from __future__ import annotations

import itertools
from typing import Final, Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection

from ..errors import ConnectionFailed

#: The top-level domain of all names that no network knows (RFC 2606).
_SUFFIX: Final = ".runlane.invalid"


class MemoryBroker(Protocol):
    """Where a connection is opened."""

    async def connect(self, path: str) -> ClientConnection:
        """Return what stands for the socket that `websockets.connect` would have opened."""
        ...


#: By host. Addresses belong to the process, as a machine's ports belong to the machine: a URL is all that settings
#: say of a broker, and clients in any thread and event loop must reach it by that alone.
_brokers: Final[dict[str, MemoryBroker]] = {}
_numbers: Final = itertools.count(1)


def listen(broker: MemoryBroker) -> str:
    """Give a broker an address, for as long as the process lives or until `unlisten`; return its URL."""
    host = f"test-{next(_numbers)}{_SUFFIX}"
    _brokers[host] = broker
    return f"http://{host}"


def unlisten(url: str) -> None:
    """Take the address back: whoever tries it from now on is told that the broker has ended."""
    _brokers.pop(_host(url), None)


async def connect(url: str) -> ClientConnection | None:
    """Return a connection, if this is the URL of such a broker. Raises `ConnectionFailed` where it has ended."""
    host = _host(url)
    if not host.endswith(_SUFFIX):
        return None
    if host not in _brokers:
        raise ConnectionFailed(None, "the test that this broker was for has ended")
    return await _brokers[host].connect(urlsplit(url).path)


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
