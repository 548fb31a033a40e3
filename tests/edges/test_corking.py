"""What is written in one turn of the event loop goes out together, and nothing stays."""

from __future__ import annotations

import asyncio
from typing import cast

from runlane_broker.serving.corking import Corked


class _Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def corked() -> tuple[Corked, _Transport]:
    transport = _Transport()
    return Corked(cast("asyncio.Transport", transport)), transport


def test_a_head_goes_with_its_body() -> None:
    async def main() -> None:
        cork, transport = corked()
        cork.write(b"head")
        assert transport.written == []
        cork.write(b"body")
        assert transport.written == [b"headbody"]
        cork.write(b"head without one")
        cork.write(b"")
        cork.write(b"more")
        await asyncio.sleep(0)
        assert transport.written == [b"headbody", b"head without one", b"more"]

    asyncio.run(main())


def test_what_is_held_goes_out_before_the_end() -> None:
    async def main() -> None:
        cork, transport = corked()
        cork.write(b"head")
        cork.close()
        assert transport.written == [b"head"]
        assert cork.is_closing()

    asyncio.run(main())


def test_nothing_is_written_to_what_is_gone() -> None:
    async def main() -> None:
        cork, transport = corked()
        cork.write(b"head")
        transport.close()
        await asyncio.sleep(0)
        assert transport.written == []

    asyncio.run(main())
