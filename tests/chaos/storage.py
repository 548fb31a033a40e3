"""A database that cannot be written for a while: its disk is full, or somebody else holds its lock."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx

from runlane.protocol import codec
from runlane.protocol import messages as m
from tests.faults.harness import Wire, new_run, producer_wire

from .figures import Figures, spread
from .fleet import Fleet, fleet
from .hogs import NoDisk, SmallDisk, small_disk
from .journal import Journal, Reader
from .nemesis import locked
from .outages import finish
from .producer import noted
from .verdict import judge

MEGABYTES = 64
#: Seconds between two questions of the probes.
PAUSE = 0.1
#: Seconds within which a refusal has to come, and within which all is as before when the database is back.
QUICK = 3.0
RECOVERY = 5.0


async def disk_full(folder: Path, *, seconds: float, scale: float, figures: Figures) -> None:
    """The disk is full for so long."""
    try:
        with small_disk(folder / "disk", MEGABYTES) as disk:
            await _unavailable(folder, folder / "disk" / "runlane.db", disk, seconds, scale, figures)
    except NoDisk as exc:
        figures.say("left out", f"a disk of our own takes root ({exc})")


async def database_locked(folder: Path, *, seconds: float, scale: float, figures: Figures) -> None:
    """Another process holds the lock for so long."""
    await _unavailable(folder, folder / "runlane.db", None, seconds, scale, figures)


async def _unavailable(
    folder: Path, database: Path, disk: SmallDisk | None, seconds: float, scale: float, figures: Figures
) -> None:
    async with fleet(folder, scale, database=database) as crowd:
        await crowd.start_broker()
        for _ in range(4):
            await crowd.add_worker()
        await crowd.subscribed()
        producer = await crowd.add_producer("--rate", 50, "--scale", 0.5, "--gentle")
        probes = Probes(crowd)
        await asyncio.sleep(2)
        async with probes.asking():
            await asyncio.sleep(1)
            async with full(disk) if disk else locked(crowd.place):
                begun = time.monotonic()
                await asyncio.sleep(seconds)
                over = time.monotonic()
            starts = Reader(folder / "executions")
            starts.more()
            await asyncio.sleep(RECOVERY + 1)
        first = [event["monotonic_ns"] / 1e9 for event in starts.more() if event["event"] == "start"]
        await finish(crowd, None, producer)
        verdict = judge(folder, database, figures)
        probes.judge(begun, over, figures)
        figures.bound("until the next run started", [min(first, default=over + 60) - over], RECOVERY)
        figures.demand(not verdict.extra, f"{len(verdict.extra)} executions were in vain")


@asynccontextmanager
async def full(disk: SmallDisk) -> AsyncIterator[None]:
    """Have the disk full."""
    await asyncio.to_thread(disk.fill)
    try:
        yield
    finally:
        await asyncio.to_thread(disk.free)


class Probes:
    """Asks for runs all the time, over HTTP and over a socket spoken by hand, and notes what is answered when."""

    def __init__(self, crowd: Fleet) -> None:
        self._crowd = crowd
        self._journal = Journal(crowd.place.folder / "producer-probe.jsonl")
        #: When, by which way, what was answered, and after how many seconds.
        self._answers: list[tuple[float, str, str, float]] = []

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask until this is left; what is under way then is waited for."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._over_http(over))
            group.create_task(self._over_the_socket(over))
            try:
                yield
            finally:
                over.set()

    async def _over_http(self, over: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self._crowd.place.url, timeout=60) as client:
            while not over.is_set():
                new = noted(self._journal, new_run("work", seconds=[0.0]))
                body = {
                    "id": new.id,
                    "task_key": new.task_key,
                    "parameters": {"seconds": [0.0]},
                    "state": {"type": "SCHEDULED"},
                }
                since = time.monotonic()
                answer = await client.post("/api/task_runs/", json=body)
                what = str(answer.status_code)
                if answer.is_success:
                    self._journal.note("answer", run=new.id, **{"is": answer.json()["id"]})
                elif "Retry-After" in answer.headers:
                    what += " with Retry-After"
                self._answers.append((since, "HTTP", what, time.monotonic() - since))
                await asyncio.sleep(PAUSE)

    async def _over_the_socket(self, over: asyncio.Event) -> None:
        connecting: AbstractAsyncContextManager[Wire] = producer_wire(self._crowd.place)
        async with connecting as wire:
            while not over.is_set():
                new = noted(self._journal, new_run("work", seconds=[0.0]))
                since = time.monotonic()
                await wire.send(m.Submit(ref=new.id, runs=(codec.encode_part(new),)))
                (answer,) = await wire.frames()
                if isinstance(answer, m.Submitted):
                    self._journal.note("answer", run=new.id, **{"is": answer.runs[0].id})
                self._answers.append((since, "socket", type(answer).__name__, time.monotonic() - since))
                await asyncio.sleep(PAUSE)

    def judge(self, begun: float, over: float, figures: Figures) -> None:
        """All that was asked meanwhile was refused, by name and soon; and afterwards nothing is."""
        for way, refusal, success in (
            ("HTTP", "503 with Retry-After", "201"),
            ("socket", "Busy", "Submitted"),
        ):
            answers = [answer for answer in self._answers if answer[1] == way]
            figures.say(f"answers, {way}", dict(Counter(what for _, _, what, _ in answers)))
            figures.demand({what for _, _, what, _ in answers} <= {refusal, success}, f"{way}: other answers")
            refused = [took for at, _, what, took in answers if what == refusal and begun <= at < over]
            figures.demand(bool(refused), f"{way}: nothing was refused")
            figures.bound(f"refused within, {way}", refused, QUICK)
            back = min((at + took for at, _, what, took in answers if what == success and at + took > over))
            figures.bound(f"taken again after, {way}", [back - over], RECOVERY)
        figures.say("all answers", spread([took for *_, took in self._answers]))
