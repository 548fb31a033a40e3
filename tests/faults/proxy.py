"""A TCP proxy that breaks connections in the ways networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Pace:
    """How slow the network is: `delay` seconds before anything passes, and at most `rate` bytes a second."""

    delay: float = 0.0
    rate: float | None = None

    @property
    def chunk(self) -> int:
        """Bytes to read at once: a tenth of a second's worth, where there is a rate."""
        return 64 * 1024 if self.rate is None else max(1, int(self.rate / 10))

    async def hold(self, size: int) -> None:
        if seconds := self.delay + (size / self.rate if self.rate else 0.0):
            await asyncio.sleep(seconds)


class _Passage:
    """One connection through the proxy: two streams, and a pump each way."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers
        self.is_sink = False
        self.bytes_left: int | None = None

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: Pace) -> None:
        with suppress(OSError):
            while data := await reader.read(pace.chunk):
                await pace.hold(len(data))
                if not self.is_sink:
                    writer.write(self._what_is_left(data))
                    await writer.drain()
                if self.bytes_left == 0:
                    self.finish()
        if not self.is_sink:
            self.finish()

    def _what_is_left(self, data: bytes) -> bytes:
        if self.bytes_left is None:
            return data
        data = data[: self.bytes_left]
        self.bytes_left -= len(data)
        return data

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
        self.pace = Pace()
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

    def truncate(self, size: int) -> None:
        """Let so many more bytes pass through each connection, both ways together, and then close it."""
        for passage in self._passages.values():
            passage.bytes_left = size

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
            await asyncio.gather(passage.pump(reader, back, self.pace), passage.pump(there, writer, self.pace))
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
