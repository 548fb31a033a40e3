"""A TCP proxy that breaks the connections of one path, and lets the others be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol


class Cutter:
    """Stands between clients and the broker."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._cut: bytes | None = None
        self._open: dict[asyncio.StreamWriter, bytes] = {}
        self.port = 0

    def cut(self, path: str) -> None:
        """Break what leads there, and whatever tries to, until `mend`.

        Not before the upgrade: a worker of Prefect's ends where that fails.
        """
        self._cut = path.encode()
        for writer, head in tuple(self._open.items()):
            if self._cut in head:
                writer.transport.abort()

    def mend(self) -> None:
        """Let everything through."""
        self._cut = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            head = await reader.read(64 * 1024)
            if self._cut is not None and self._cut in head.partition(b"\r\n")[0]:
                writer.write(_upgraded(head))
                writer.close()
                return
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            self._open[writer] = head.partition(b"\r\n")[0]
            forth.write(head)
            try:
                await asyncio.gather(_pump(reader, forth), _pump(back, writer))
            finally:
                del self._open[writer]

    @classmethod
    @asynccontextmanager
    async def open(cls, target: int) -> AsyncGenerator[Cutter]:
        """Open one in front of a port."""
        cutter = cls(target)
        server = await asyncio.start_server(cutter._accept, "127.0.0.1", 0)
        cutter.port = server.sockets[0].getsockname()[1]
        try:
            yield cutter
        finally:
            server.close()
            for writer in tuple(cutter._open):
                writer.transport.abort()


def _upgraded(head: bytes) -> bytes:
    """Answer the request for an upgrade."""
    protocol = ServerProtocol(subprotocols=[Subprotocol("prefect")])
    protocol.receive_data(head)
    (request,) = protocol.events_received()
    assert isinstance(request, Request)
    protocol.send_response(protocol.accept(request))
    return b"".join(protocol.data_to_send())


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    writer.close()
