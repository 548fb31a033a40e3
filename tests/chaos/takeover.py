"""Takeovers: how long until the runs of a worker that is killed, stopped or cut off are started elsewhere."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.faults.harness import new_run, until
from tests.faults.proxy import proxy

from .figures import Figures
from .fleet import PATIENCE, Fleet, Party, fleet
from .journal import Journal, Reader
from .producer import Producer
from .verdict import judge

#: Workers that are hurt in one round, and runs that each of them holds.
BATCH = 10
HELD = 4
#: Seconds at the default timers: who is stopped is so for longer than its runs take, and brings their ends.
LONG = 20.0
#: Within so many seconds the faults of a round are spread: beats and sweeps have another phase in each.
SPREAD = 2.0
#: Seconds within which everything of a worker has to be started elsewhere, at the default timers.
LIMITS = {"kill": 6.0, "stop": 13.0, "half-open": 13.0}


async def takeover(folder: Path, how: str, *, count: int, scale: float, seed: int, figures: Figures) -> None:
    """Do it to `count` workers, `BATCH` at a time; how: `kill`, `stop`, `half-open`."""
    chance = random.Random(seed)
    async with fleet(folder, scale) as crowd:
        await crowd.start_broker()
        async with crowd.place.client() as client:
            producer = Producer(client, Journal(folder / "producer-0.jsonl"))
            victims: list[Party] = []
            for _ in range(min(BATCH, count)):
                cut = how == "half-open"
                between = await crowd.stack.enter_async_context(proxy(crowd.place.port)) if cut else None
                victims.append(await crowd.add_worker(limit=HELD, proxy=between))
            rounds = _Round(crowd, producer, victims, how, chance)
            for _ in range(-(-count // len(victims))):
                await rounds.once()
        await crowd.place.end()
        verdict = judge(folder, crowd.place.database, figures)
        limit = LIMITS[how] * scale
        figures.bound("until all was started elsewhere", verdict.takeovers[how], limit, strict=scale == 1)
        if how != "kill":
            late = len(verdict.extra)
            figures.say("late completions refused", f"{rounds.refused} of {late}")
            figures.demand(rounds.refused == late, f"{late - rounds.refused} late completions were not refused")


class _Round:
    """Full workers are hurt, and one that stands by takes over."""

    def __init__(
        self, crowd: Fleet, producer: Producer, victims: list[Party], how: str, chance: random.Random
    ) -> None:
        self._crowd = crowd
        self._producer = producer
        self._victims = victims
        self._how = how
        self._chance = chance
        self._executions = Reader(crowd.place.folder / "executions")
        self._started: dict[str, set[int]] = {}
        self._seen: dict[str, int] = {}
        self.refused = 0

    async def once(self) -> None:
        """One round."""
        for victim in self._victims:
            assert victim.process is not None
            await victim.process.line("subscribed as session", PATIENCE)
        seconds = LONG * self._crowd.scale
        runs = [new_run("work", seconds=[seconds, 0.1]) for _ in range(len(self._victims) * HELD)]
        for new in runs:
            await self._producer.submit(new)
        ids = [new.id for new in runs]
        await until(lambda: all(self._starts(run_id) for run_id in ids), PATIENCE)
        standby = await self._crowd.add_worker(limit=len(runs))
        assert standby.process is not None
        await standby.process.line("subscribed as session", PATIENCE)
        await asyncio.gather(*(self._hurt(victim, ids) for victim in self._victims))
        await self._producer.all_ended()
        await self._crowd.stop(standby, 10)
        self._crowd.workers.remove(standby)

    def _starts(self, run_id: str) -> set[int]:
        for event in self._executions.more():
            if event["event"] == "start":
                self._started.setdefault(event["run"], set()).add(event["attempt"])
        return self._started.get(run_id, set())

    async def _hurt(self, victim: Party, ids: list[str]) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, SPREAD * self._crowd.scale))
        assert victim.process is not None
        hurt = self._crowd.hurt(self._how, victim)
        if self._how == "kill":
            await victim.process.kill()
            await until(lambda: all(2 in self._starts(run_id) for run_id in ids), PATIENCE)
            await self._crowd.start(victim)
            return
        cut = self._how == "half-open"
        if cut and victim.proxy:
            victim.proxy.go_down("blackhole")
        else:
            victim.process.pause()
        await asyncio.sleep(LONG * self._crowd.scale)
        await until(lambda: all(2 in self._starts(run_id) for run_id in ids), PATIENCE)
        if cut and victim.proxy:
            victim.proxy.come_up()
        else:
            victim.process.go_on()
        self._crowd.healed(hurt)
        await self._all_refused(victim)

    async def _all_refused(self, victim: Party) -> None:
        """It comes back, and hears that nothing of what it had is its own."""
        assert victim.process is not None
        process, before = victim.process, self._seen.get(victim.name, 0)
        said = f"0 runs resumed, {HELD} lost"
        await until(lambda: process.log.count(said) > before, PATIENCE)
        self._seen[victim.name] = before + 1
        self.refused += HELD
