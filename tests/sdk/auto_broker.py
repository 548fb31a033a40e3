"""The fake broker in a thread of its own, for sync code: it answers by itself, as a test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed

from runlane.protocol import codec
from runlane.protocol import messages as m
from runlane.settings import Settings

from .fake_broker import PATIENCE, Peer, completed, fake_broker, submitted

Answer = Callable[[Any], Iterable[m.Frame]]


def accept(frame: m.Frame) -> Iterable[m.Frame]:
    """Take every run, and tell of no end."""
    return [submitted(frame)] if isinstance(frame, m.Submit) else []


def finish(frame: m.Frame) -> Iterable[m.Frame]:
    """Take every run, and let it have ended, with the result 5, when it is watched."""
    return [completed(run_id) for run_id in frame.ids] if isinstance(frame, m.Watch) else accept(frame)


class AutoBroker:
    """What a test sees of the broker: all that it heard, and how often it was called."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.settings = Settings()
        self.heard: list[Any] = []
        self.connections = 0
        self._peers: list[Peer] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()

    def __enter__(self) -> AutoBroker:
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    @property
    def runs(self) -> list[m.NewRun]:
        """All runs that were submitted."""
        frames = [frame for frame in self.heard if isinstance(frame, m.Submit)]
        return [codec.decode_new_run(raw, "runs", 10**6) for frame in frames for raw in frame.runs]

    @property
    def watched(self) -> list[str]:
        """All ids that were to be watched, in order."""
        return [run_id for frame in self.heard if isinstance(frame, m.Watch) for run_id in frame.ids]

    def send(self, *frames: m.Frame) -> None:
        """Say something to everybody."""
        for peer in self._peers:
            asyncio.run_coroutine_threadsafe(peer.send(*frames), self._loop).result(PATIENCE)

    def drop(self) -> None:
        """Break all connections."""
        for peer in self._peers:
            self._loop.call_soon_threadsafe(peer.drop)

    async def _serve(self) -> None:
        async with fake_broker() as broker:
            self.settings = broker.settings
            self._ready.set()
            accepting = asyncio.create_task(self._accept(broker.peers()))
            await self._stop.wait()
            accepting.cancel()

    async def _accept(self, peers: Any) -> None:
        async with asyncio.TaskGroup() as talks:
            async for peer in peers:
                self.connections += 1
                self._peers.append(peer)
                talks.create_task(self._talk(peer))

    async def _talk(self, peer: Peer) -> None:
        with suppress(ConnectionClosed):
            while True:
                frame = await peer.next(None)
                self.heard.append(frame)
                await peer.send(*self.answer(frame))
        self._peers.remove(peer)


@contextmanager
def auto_broker(answer: Answer = finish) -> Iterator[AutoBroker]:
    with AutoBroker(answer) as broker:
        yield broker
