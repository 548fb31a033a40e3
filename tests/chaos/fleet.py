"""The processes of a scenario: a broker, workers, producers. Whoever is killed is replaced under the same name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from runlane_broker.settings import Timers
from tests.faults.harness import TASKS, Process, Site, site
from tests.faults.proxy import Proxy

from .journal import Journal

ROOT = Path(__file__).parents[2]
#: Seconds after which what is waited for will not come, on a machine that has much else to do.
PATIENCE = 120.0
#: What a worker says first once a signal no longer just kills it.
HEARS_SIGNALS = "runlane.transport: "


def timers(scale: float) -> dict[str, float]:
    """Return the default timers, times `scale`."""
    return {name: seconds * scale for name, seconds in asdict(Timers()).items()}


def _bytecode(folder: Path) -> dict[str, str]:
    """Have processes keep their bytecode, as installed programs do, whatever the caller's environment says.

    Without it each start of a broker compiles it anew, which takes a third of the start.
    """
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


@dataclass
class Party:
    """A place that one process after the other fills, and the proxy that it speaks through, if any."""

    name: str
    arguments: tuple[object, ...]
    module: str = "runlane"
    proxy: Proxy | None = None
    process: Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@dataclass(frozen=True)
class Hurt:
    """What is done to whom: names and process ids."""

    kind: str
    parties: tuple[tuple[str, int], ...]


class Fleet:
    """A site whose parties are replaced when they end."""

    def __init__(self, place: Site, scale: float, stack: AsyncExitStack) -> None:
        self.place = place
        self.scale = scale
        #: Left when the fleet is: for clients and proxies.
        self.stack = stack
        self.journal = Journal(place.folder / "nemesis.jsonl")
        self.broker: Process | None = None
        self.workers: list[Party] = []
        self.producers: list[Party] = []

    async def start_broker(self) -> Process:
        """Start the broker; again, where it could not start now (its database is locked, its disk full)."""
        while True:
            try:
                self.broker = await self.place.broker(PATIENCE)
            except AssertionError as exc:
                if "ended with 1:" not in str(exc):
                    raise
                await asyncio.sleep(0.2)
            else:
                return self.broker

    async def add_worker(self, *, limit: int = 8, proxy: Proxy | None = None) -> Party:
        """Add a worker and start it; it need not have subscribed yet."""
        url = proxy.url if proxy else self.place.url
        name = f"worker-{len(self.workers)}"
        party = Party(name, ("worker", TASKS, "--limit", limit, "--url", url), proxy=proxy)
        self.workers.append(party)
        await self.start(party)
        return party

    async def add_producer(self, *options: object, proxy: Proxy | None = None) -> Party:
        """Add a producer and start it."""
        name = f"producer-{len(self.producers)}"
        url = proxy.url if proxy else self.place.url
        arguments = ("--url", url, "--journal", self.place.folder / f"{name}.jsonl", *options)
        party = Party(name, arguments, "tests.chaos.producer", proxy)
        self.producers.append(party)
        await self.start(party)
        return party

    async def start(self, party: Party) -> Process:
        """Fill the party's place with a new process."""
        environment = {"PYTHONPATH": str(ROOT), "EXECUTIONS": str(self.place.folder / "executions")}
        party.process = await self.place.launch(party.name, *party.arguments, module=party.module, **environment)
        return party.process

    async def subscribed(self) -> None:
        """Wait until every worker is."""
        for party in self.workers:
            assert party.process is not None
            await party.process.line("subscribed as session", PATIENCE)

    async def stop(self, party: Party, seconds: float) -> int:
        """Tell a party to end, return its exit code."""
        assert party.process is not None
        party.process.go_on()
        if party in self.workers:
            await party.process.line(HEARS_SIGNALS, PATIENCE)
        party.process.terminate()
        return await party.process.wait(seconds)

    def hurt(self, kind: str, *parties: Party) -> Hurt:
        """Note what is about to be done to whom (nobody: to the broker); `healed` notes when it is over."""
        hurt = Hurt(kind, tuple((party.name, party.pid) for party in parties))
        self.journal.note("hurt", kind=kind, parties=hurt.parties)
        return hurt

    def healed(self, hurt: Hurt) -> None:
        """Note that it is over."""
        self.journal.note("healed", kind=hurt.kind, parties=hurt.parties)


@asynccontextmanager
async def fleet(folder: Path, scale: float = 1.0, *, database: Path | None = None) -> AsyncIterator[Fleet]:
    """Have a fleet in this folder, with nothing started yet; whatever was, is killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    async with site(folder, **timers(scale)) as place, AsyncExitStack() as stack:
        place.environment = _bytecode(folder)
        if database is not None:
            place.database = database
        crowd = Fleet(place, scale, stack)
        try:
            yield crowd
        finally:
            crowd.journal.close()
