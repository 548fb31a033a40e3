"""Peers that never read, that flood, and that send malformed frames, in a process of their own.

It has the lowest priority, if it was told `aside`: hostile peers are on machines of theirs, and what they take
from a broker is what they have it do, not its processor. Arguments: the broker's port, `aside`. Commands:

    ["loose", run, count]    so many of each hostile kind (the run has a large result); seconds until each was cut
    ["plan", seed, count]    which frames are to be sent
    ["send", count, width]   send so many of them, over so many connections at once; the counts
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from runlane.protocol import messages as m
from runlane.protocol.codec import encode

from . import raw
from .asking import answer, commands, step_back
from .frames import plan, send

#: Seconds after which nobody waits for a peer to be cut any more.
PATIENCE = 30.0

_NOBODY = b"0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90"
_BEAT = b'{"type":"beat","n":1}'
AUTH = b'{"type":"auth"}'
_FINISHED = b'{"type":"finished","id":"' + _NOBODY + b'","attempt":1,"state":{"type":"COMPLETED"}}'
SUBSCRIBE = b'{"type":"subscribe","client_id":"hostile","keys":["hostile"],"limit":1}'
#: What flooders say: the socket, and a message that they repeat as fast as it is taken.
FLOODS: Sequence[tuple[str, bytes]] = (
    ("worker", _BEAT),
    ("producer", b"[" + b",".join([_BEAT] * 1000) + b"]"),
    ("worker", b"[" + b",".join([_FINISHED] * 100) + b"]"),
    ("producer", b'{"type":"submit","ref":1,"runs":[{},{},{}]}'),
    ("producer", b"[" + b",".join([b"null"] * 100) + b"]"),
    ("taker", b'{"type":"ack"}'),
    ("events in", b'{"id":1}'),
    ("events out", b"{}"),
)
#: What is said before that.
_OPENINGS: Final[Mapping[str, Sequence[bytes]]] = {
    "worker": (AUTH, SUBSCRIBE),
    "producer": (AUTH,),
    "taker": (AUTH, b'{"type":"subscribe","client_id":"hostile-1","keys":["hostile"]}'),
    "events in": (AUTH,),
    "events out": (AUTH, b'{"type":"filter","filter":{},"backfill":false}'),
}


async def _never_read(port: int, large: str) -> float:
    """Ask for a large result again and again, take none; the seconds from the last thing taken to the cut."""
    watch = encode(m.Watch(ids=(large,)))
    return await _take_nothing(port, "producer", [AUTH], lambda peer: peer.send(watch))


async def _take_no_events(port: int) -> float:
    """Ask for the ends of all runs there are, take none; the seconds until the cut."""
    opening = [AUTH, b'{"type":"filter","filter":{},"backfill":true}']
    return await _take_nothing(port, "events out", opening, lambda peer: peer.send(b"", opcode=raw.PING))


async def _take_nothing(
    port: int, kind: str, opening: Sequence[bytes], say: Callable[[raw.Raw], Awaitable[None]]
) -> float:
    """Say something again and again, take no answer; the seconds until the cut."""
    since = time.monotonic()
    with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(PATIENCE):
            peer = await raw.connect(port, kind)
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            since = time.monotonic()
            await peer.send(*opening)
            while not peer.writer.transport.is_closing():
                await say(peer)
                await asyncio.sleep(0.05)
    return time.monotonic() - since


async def _flood(port: int, kind: str, message: bytes) -> float:
    """Repeat a message as fast as it is taken; the seconds until the cut."""
    since = time.monotonic()
    with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(PATIENCE):
            peer = await raw.connect(port, kind)
            since = time.monotonic()
            await peer.send(*_OPENINGS[kind])
            ending = asyncio.create_task(peer.ended())
            try:
                while not peer.writer.transport.is_closing() and not ending.done():
                    await peer.send(message)
                    await asyncio.sleep(0)
            finally:
                ending.cancel()
                peer.close()
    return time.monotonic() - since


async def loose(port: int, large: str, count: int) -> dict[str, list[float]]:
    """Be hostile until all are cut; the seconds that took."""
    deaf = [_take_no_events(port) if i % 5 == 4 else _never_read(port, large) for i in range(count)]
    loud = [_flood(port, *FLOODS[i % len(FLOODS)]) for i in range(count)]
    seconds = await asyncio.gather(*deaf, *loud)
    return {"never reading": seconds[:count], "flooding": seconds[count:]}


async def main(port: int) -> None:
    """Do what is asked."""
    todo: Iterator[Any] = iter(())
    async for command in commands():
        match command:
            case ["loose", large, count]:
                answer(await loose(port, large, count))
            case ["plan", seed, count]:
                todo = plan(seed, count)
                answer(None)
            case ["send", count, width]:
                answer(await send(port, todo, count, width))
            case _:
                raise ValueError(command)


if __name__ == "__main__":
    if "aside" in sys.argv[2:]:
        step_back()
    asyncio.run(main(int(sys.argv[1])))
