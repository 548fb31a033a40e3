"""Writing the head and the body of an answer together: uvicorn writes them one after the other."""

from __future__ import annotations

import asyncio
from typing import Any


class Corked:
    """A transport that holds the first of two writes back until the second, or the next turn of the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's."""
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Write, soon."""
        if self._held:
            held, self._held = self._held, b""
            self.transport.write(held + data)
        elif data:
            self._held = data
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        """Close when everything is written."""
        self._flush()
        self.transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self.transport.is_closing():
            self.transport.write(held)
