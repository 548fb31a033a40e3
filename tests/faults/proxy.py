"""A TCP proxy that breaks connections in the ways networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Passage:
    """One connection through the proxy: two streams, and a pump each way."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers
        self.is_sink = False

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(64 * 1024):
                if not self.is_sink:
                    writer.write(data)
                    await writer.drain()
        if not self.is_sink:
            self.finish()

    def finish(self) -> None:
        """Close both ends: a FIN each."""
        for writer in self.writers:
            writer.close()

    def reset(self) -> None:
        """Break both ends: a RST each."""
        for writer in self.writers:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class Proxy:
    """Stands between a worker and the broker. What it cuts are the connections of that moment."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._passages: dict[asyncio.Task[None], _Passage] = {}
        self._is_down = False
        self.port = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self, how: str) -> None:
        """Cut what is connected: `rst`, `fin`, or `blackhole`, after which neither end hears of the other."""
        for passage in self._passages.values():
            match how:
                case "rst":
                    passage.reset()
                case "fin":
                    passage.finish()
                case "blackhole":
                    passage.is_sink = True
                case _:
                    raise ValueError(how)

    def go_down(self, how: str = "rst") -> None:
        """Cut everything, and reset every new connection until `come_up`."""
        self._is_down = True
        self.cut(how)

    def come_up(self) -> None:
        self._is_down = False

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        passage = self._passages[task] = _Passage(writer)
        try:
            if self._is_down:
                passage.reset()
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            passage.writers = (writer, back)
            self.connections += 1
            await asyncio.gather(passage.pump(reader, back), passage.pump(there, writer))
        except OSError:
            passage.reset()
        finally:
            passage.finish()
            del self._passages[task]

    async def stop(self) -> None:
        """Reset what is left; every pump ends by that."""
        tasks = tuple(self._passages)
        self.cut("rst")
        await asyncio.gather(*tasks)


@asynccontextmanager
async def proxy(port: int) -> AsyncGenerator[Proxy]:
    """Have a proxy to this local port."""
    between = Proxy(port)
    server = await asyncio.start_server(between.accept, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        server.close()
        await between.stop()
        await server.wait_closed()
