"""The nemesis: carries out a schedule on a fleet, and heals everything at the end.

What lasts (a pause, an outage, a lock) goes on while the next steps are taken, so that faults overlap; only one
at a time for each target.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.faults.harness import Process, Site
from tests.faults.proxy import Pace, Proxy

from .fleet import HEARS_SIGNALS, PATIENCE, ROOT, Fleet, Party
from .hogs import SmallDisk
from .schedule import Step

#: Seconds within which a process that was told to end must have.
END_SECONDS = PATIENCE
#: What passes before a truncated connection is closed, in bytes at most.
MOST_BYTES = 4000


@asynccontextmanager
async def locked(place: Site) -> AsyncIterator[None]:
    """Have another process hold the database's write lock."""
    hog = await place.launch("hog", place.database, module="tests.chaos.hogs", PYTHONPATH=str(ROOT))
    try:
        await hog.line("locked", PATIENCE)
        yield
    finally:
        await hog.kill()


class Nemesis:
    """Does to a fleet what a schedule says."""

    def __init__(self, fleet: Fleet, disk: SmallDisk | None) -> None:
        self._fleet = fleet
        self._disk = disk
        self._busy: set[object] = set()
        self._lasting: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        self.exits: list[tuple[str, int]] = []

    async def carry_out(self, step: Step) -> None:
        """Wait, then do one thing: as soon as there is a target that nothing else is being done to.

        Raises what went wrong in one that lasts.
        """
        await asyncio.sleep(step.wait)
        while not await self._do(step):
            assert self._lasting, f"there is nobody for {step.kind}"
            await asyncio.wait(self._lasting, return_when=asyncio.FIRST_COMPLETED)
            self._reap()
        self._reap()
        self.counts[step.kind] += 1

    def _reap(self) -> None:
        for task in [task for task in self._lasting if task.done()]:
            self._lasting.discard(task)
            task.result()

    async def heal(self) -> None:
        """Wait until what lasts is over, and everybody is there."""
        await asyncio.gather(*self._lasting)
        self._lasting.clear()

    async def _do(self, step: Step) -> bool:
        target, _, what = step.kind.partition("-")
        match target:
            case "broker":
                return await self._broker(what, step.seconds)
            case "worker" | "producer":
                parties = self._fleet.workers if target == "worker" else self._fleet.producers
                party = self._choose(parties, step.chance)
                return party is not None and await self._party(party, step)
            case "locked":
                return self._last("database", self._locked(step.seconds))
            case "full":
                return self._disk is not None and self._last("database", self._full(self._disk, step.seconds))
            case _:
                return self._network(step)

    def _choose(self, parties: Sequence[Party], chance: float) -> Party | None:
        """Return one that nothing is being done to; one is always left alone."""
        free = [party for party in parties if party.name not in self._busy]
        return free[int(chance * len(free))] if len(free) > 1 or len(parties) == 1 == len(free) else None

    def _last(self, target: object, doing: Coroutine[Any, Any, None]) -> bool:
        """Let something go on by itself, unless something is being done to the target already."""
        if target in self._busy:
            doing.close()
            return False
        self._busy.add(target)

        async def whole() -> None:
            try:
                await doing
            finally:
                self._busy.discard(target)

        self._lasting.add(asyncio.create_task(whole(), name=f"{target}"))
        return True

    # --- Processes ----------------------------------------------------------------------------------------

    async def _broker(self, what: str, seconds: float) -> bool:
        broker = self._fleet.broker
        if "broker" in self._busy or broker is None:
            return False
        if what == "stop":
            return self._last("broker", self._pause_broker(broker, seconds))
        if what == "kill":
            self._fleet.hurt("broker-kill")
            await broker.kill()
        else:
            broker.terminate()
            self.exits.append(("broker", await broker.wait(END_SECONDS)))
        await self._fleet.start_broker()
        return True

    async def _pause_broker(self, broker: Process, seconds: float) -> None:
        hurt = self._fleet.hurt("broker-stop")
        broker.pause()
        await asyncio.sleep(seconds)
        broker.go_on()
        self._fleet.healed(hurt)

    async def _party(self, party: Party, step: Step) -> bool:
        assert party.process is not None
        match step.kind.partition("-")[2]:
            case "kill":
                self._fleet.hurt(step.kind, party)
                await party.process.kill()
                await self._fleet.start(party)
                return True
            case "term":
                return self._last(party.name, self._replace(party, party.process))
            case _:
                return self._last(party.name, self._pause(party, party.process, step))

    async def _pause(self, party: Party, process: Process, step: Step) -> None:
        hurt = self._fleet.hurt(step.kind, party)
        process.pause()
        await asyncio.sleep(step.seconds)
        process.go_on()
        self._fleet.healed(hurt)

    async def _replace(self, party: Party, process: Process) -> None:
        await process.line(HEARS_SIGNALS, PATIENCE)
        process.terminate()
        self.exits.append((party.name, await process.wait(END_SECONDS)))
        if self._broker_is_away:  # nobody has heard its reports, though it has waited as long as it may drain
            self._fleet.hurt("left-alone", party)
        await self._fleet.start(party)

    @property
    def _broker_is_away(self) -> bool:
        broker = self._fleet.broker
        return "broker" in self._busy or broker is None or not broker.is_running

    # --- Network ------------------------------------------------------------------------------------------

    def _network(self, step: Step) -> bool:
        parties = [party for party in (*self._fleet.workers, *self._fleet.producers) if party.proxy]
        proxies = list(dict.fromkeys(party.proxy for party in parties))
        proxy = proxies[int(step.chance * len(proxies))]
        behind = [party for party in parties if party.proxy is proxy]
        assert proxy is not None
        match step.kind:
            case "outage" | "slow":
                return self._last(proxy, self._disturb(proxy, behind, step))
            case "truncate":
                self._fleet.healed(self._fleet.hurt(step.kind, *behind))
                proxy.truncate(int(step.chance * 997 % 1 * MOST_BYTES))
            case kind:
                # A reset takes nothing but time; who hears nothing any more is silent for as long as it takes.
                hurt = self._fleet.hurt(kind, *behind)
                proxy.cut({"reset": "rst", "close": "fin"}.get(kind, kind))
                if kind != "blackhole":
                    self._fleet.healed(hurt)
        return True

    async def _disturb(self, proxy: Proxy, behind: Sequence[Party], step: Step) -> None:
        hurt = self._fleet.hurt(step.kind, *behind)
        if step.kind == "outage":
            proxy.go_down()
            await asyncio.sleep(step.seconds)
            proxy.come_up()
        else:
            proxy.pace.delay, proxy.pace.rate = 0.1 * step.chance, 50_000.0
            await asyncio.sleep(step.seconds)
            proxy.pace.delay, proxy.pace.rate = Pace().delay, Pace().rate
        self._fleet.healed(hurt)

    # --- Database -----------------------------------------------------------------------------------------

    async def _locked(self, seconds: float) -> None:
        hurt = self._fleet.hurt("locked")
        async with locked(self._fleet.place):
            await asyncio.sleep(seconds)
        self._fleet.healed(hurt)

    async def _full(self, disk: SmallDisk, seconds: float) -> None:
        hurt = self._fleet.hurt("full")
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(disk.free)
        self._fleet.healed(hurt)
