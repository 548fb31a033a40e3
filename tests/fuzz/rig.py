"""A real broker, a healthy producer and worker beside it, and what both are held to."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from runlane.protocol import messages as m
from tests.faults.harness import Process, Site, site, within, worker_wire
from tests.storage.database import audit

from .asking import Asked, asked
from .cases import KEYS, QUEUE

MIB = 2**20

#: What a key is to `runlane.v1`.
_TASK_KEY = r"[\w.:<>/-]{1,200}"
_WAITING_KEYS = "SELECT DISTINCT task_key FROM task_run WHERE state_type = 'SCHEDULED'"


@dataclass(frozen=True, slots=True)
class Rig:
    """What a campaign runs against."""

    place: Site
    broker: Process
    healthy: Asked
    peers: Asked

    async def settled_rss(self) -> int:
        """Return the broker's memory once what was closed is cleared away."""
        await asyncio.sleep(0.5)
        return self.broker.rss()

    def connections(self) -> int:
        """Return how many sockets the broker has open."""
        return sum(
            os.readlink(f"/proc/{self.broker.pid}/fd/{fd}").startswith("socket:")
            for fd in os.listdir(f"/proc/{self.broker.pid}/fd")
        )

    def faults(self) -> list[str]:
        """Return the lines of the broker's log that must not be there."""
        return re.findall(
            r"^.*(?:Traceback|\bERROR\b|\bCRITICAL\b|never retrieved).*$", self.broker.log, re.MULTILINE
        )

    def _keys(self) -> tuple[str, ...]:
        """Return the keys that anything waits for: a frame whose key was changed may be valid all the same.

        Those that only Prefect's clients may use are waited for by their workers alone.
        """
        waiting = self.place.read(_WAITING_KEYS)
        return tuple({*KEYS, *(key for (key,) in waiting if re.fullmatch(_TASK_KEY, key))})

    async def drain(self) -> int:
        """Execute what valid frames have queued; return how many of those runs are stuck."""
        async with worker_wire(self.place) as wire:
            await wire.send(m.Subscribe(client_id="drain", keys=self._keys(), limit=500))
            await wire.expect(m.Subscribed)
            with suppress(TimeoutError):
                while True:
                    for frame in await within(8.0, wire.frames()):
                        if isinstance(frame, m.Runs):
                            ended = m.FinalState(type="COMPLETED")
                            reports = (m.Finished(id=r.id, attempt=r.attempt, state=ended) for r in frame.runs)
                            await wire.send(*reports)
        stuck = self.place.read(
            "SELECT task_key FROM task_run WHERE session_id IS NOT NULL"
            " OR (state_type = 'SCHEDULED' AND withheld IS NULL AND due < unixepoch() * 1000000)"
        )
        return sum(re.fullmatch(_TASK_KEY, key) is not None for (key,) in stuck)

    def audit(self) -> None:
        """Fail if something stands in the database that must not."""
        with closing(sqlite3.connect(f"file:{self.place.database}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            audit(lambda text: connection.execute(text).fetchall())


async def _make_queue(place: Site) -> None:
    """Make what valid frames subscribe to."""
    pool, _, queue = QUEUE.partition("/")
    async with httpx.AsyncClient(base_url=f"{place.url}/api/work_pools/") as client:
        for path, body in (("", {"name": pool, "type": "process"}), (f"{pool}/queues", {"name": queue})):
            answer = await client.post(path, json=body)
            assert answer.is_success, answer.text


@asynccontextmanager
async def rig(folder: Path, *, aside: bool = True) -> AsyncGenerator[Rig]:
    """Start a broker at its defaults, the healthy peers, and the others, `aside`: with the lowest priority."""
    async with site(folder) as place:
        broker = await place.broker()
        await _make_queue(place)
        places = asked("healthy", place.url), asked("peers", place.port, *(["aside"] if aside else []))
        async with places[0] as healthy, places[1] as peers:
            yield Rig(place, broker, healthy, peers)
