"""Brokers that are stopped or started again, rolling restarts, and the soak in which nothing happens at all."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from tests.faults.harness import new_run, until

from .figures import Figures, spread
from .fleet import PATIENCE, Fleet, Party, fleet
from .journal import Journal, Reader
from .nemesis import END_SECONDS
from .producer import Producer
from .verdict import Verdict, judge

#: Runs a second beside those that are in flight: what shows that runs are dispatched.
TRICKLE = 50
#: Seconds that a slot is taken, at most, by a run of those that wait. They are of all lengths: with only one, all
#: slots would become free at once, and the gap would be that length, whatever the broker does.
SLOT_SECONDS = 4.0
#: And how many of them wait: more than are started until whoever submits them is back, too.
WAITING = 3000
#: Restarts of each kind, and seconds that one takes at most, on a machine that has much else to do.
ROUNDS = 5
ROUND_SECONDS = 12.0
#: Workers that are started at the same time: more would only wait for each other.
AT_ONCE = 10
#: Seconds after a restart until the next runs are started, at most.
GAP = 3.0


async def broker_stop(folder: Path, *, seconds: float, runs: int, scale: float, figures: Figures) -> None:
    """SIGSTOP the broker for so long, with so many runs in flight: none may be executed twice."""
    async with fleet(folder, scale) as crowd:
        producer = await _in_flight(crowd, workers=5, runs=runs, seconds=seconds * 1.5)
        broker = crowd.broker
        assert broker is not None
        broker.pause()
        await asyncio.sleep(seconds)
        broker.go_on()
        await finish(crowd, producer)
        _all_once(judge(folder, crowd.place.database, figures), figures)


async def broker_restart(folder: Path, *, workers: int, runs: int, scale: float, figures: Figures) -> None:
    """Stop the broker with SIGTERM and kill -9, several times each, with so many workers and runs in flight."""
    async with fleet(folder, scale) as crowd:
        producer = await _in_flight(crowd, workers=workers, runs=runs, seconds=2 * ROUNDS * ROUND_SECONDS)
        begun = time.monotonic()
        async with _fed(producer):
            starts = Starts(folder / "executions")
            restarts = Restarts(crowd, starts, figures)
            for how in ("SIGTERM", "kill -9") * ROUNDS:
                await asyncio.sleep(SLOT_SECONDS / 2)
                await restarts.restart(how)
            held = time.monotonic() - begun < 2 * ROUNDS * ROUND_SECONDS
            figures.demand(held, "the runs in flight have ended before the last restart")
        await finish(crowd, producer)
        restarts.tell(strict=scale == 1)
        _all_once(judge(folder, crowd.place.database, figures), figures)


async def rolling(folder: Path, *, rounds: int, scale: float, figures: Figures) -> None:
    """Replace three workers and the broker one after the other, under load: nobody notices."""
    async with fleet(folder, scale) as crowd:
        await crowd.start_broker()
        for _ in range(3):
            await crowd.add_worker(limit=20)
        await crowd.subscribed()
        producer = await crowd.add_producer("--rate", 2 * TRICKLE, "--scale", 0.3, "--gentle")
        for _ in range(rounds):
            for party in crowd.workers:
                await asyncio.sleep(1)
                code = await crowd.stop(party, END_SECONDS)
                figures.demand(code == 0, f"{party.name} has exit code {code}")
                process = await crowd.start(party)
                await process.line("subscribed as session", PATIENCE)
            await asyncio.sleep(1)
            assert crowd.broker is not None
            crowd.broker.terminate()
            figures.demand(await crowd.broker.wait(END_SECONDS) == 0, "the broker's exit code is not 0")
            await crowd.start_broker()
        await asyncio.sleep(1)
        await finish(crowd, None, producer)
        _all_once(judge(folder, crowd.place.database, figures), figures)


async def soak(folder: Path, *, runs: int, scale: float, figures: Figures) -> None:
    """So many runs, as fast as they go, and nothing is done to anybody: exactly as many starts."""
    async with fleet(folder, scale) as crowd:
        await crowd.start_broker()
        for _ in range(4):
            await crowd.add_worker(limit=25)
        await crowd.subscribed()
        parties = [
            await crowd.add_producer("--rate", 1e6, "--plain", "--count", runs // 2 + n * (runs % 2))
            for n in range(2)
        ]
        for party in parties:
            assert party.process is not None
            await party.process.wait(3600)
        await finish(crowd, None)
        verdict = judge(folder, crowd.place.database, figures)
        _all_once(verdict, figures)
        figures.demand(len(verdict.executions) == runs, f"{len(verdict.executions)} starts of {runs} runs")
        times = [execution.started for execution in verdict.executions]
        figures.say("runs a second", f"{len(times) / (max(times) - min(times)):.0f}")


# --- What they share --------------------------------------------------------------------------------------


async def _in_flight(crowd: Fleet, *, workers: int, runs: int, seconds: float) -> Producer:
    """Start a broker and workers, and fill four fifths of their slots with runs that take so long."""
    await crowd.start_broker()
    limit = -(-runs * 5 // 4 // workers)
    for n in range(workers):
        await crowd.add_worker(limit=limit)
        if n % AT_ONCE == AT_ONCE - 1:
            await crowd.subscribed()
    await crowd.subscribed()
    client = await crowd.stack.enter_async_context(crowd.place.client())
    producer = Producer(client, Journal(crowd.place.folder / "producer-by-hand.jsonl"), runs + WAITING)
    wanted = [new_run("work", seconds=[seconds]) for _ in range(runs)]
    for new in wanted:
        await producer.submit(new)
    await crowd.place.started([new.id for new in wanted], PATIENCE)
    return producer


async def finish(crowd: Fleet, by_hand: Producer | None, *producers: Party) -> None:
    """Let everything come to its end, and end everybody."""
    for party in producers:
        await crowd.stop(party, 2 * END_SECONDS)
    if by_hand is not None:
        await by_hand.all_ended()
    await asyncio.gather(*(crowd.stop(party, END_SECONDS) for party in crowd.workers))
    assert crowd.broker is not None
    crowd.broker.terminate()
    await crowd.broker.wait(END_SECONDS)


def _all_once(verdict: Verdict, figures: Figures) -> None:
    """Nothing was executed twice, nothing has lost its worker, and nothing has failed."""
    lost, failed = verdict.costs
    figures.demand(not verdict.extra, f"{len(verdict.extra)} executions were in vain")
    figures.demand((lost, failed) == (0, 0), f"{lost} runs have lost a worker, {failed} have failed")
    runs, starts = len(verdict.tables.runs), len(verdict.executions)
    figures.demand(runs == starts, f"{starts} starts of {runs} runs")


@asynccontextmanager
async def _fed(producer: Producer) -> AsyncIterator[None]:
    """Have runs wait for every free slot, as long as the block takes."""
    chance = random.Random(1)

    async def feed() -> None:
        while True:
            await producer.submit(new_run("work", seconds=[chance.uniform(0.2, SLOT_SECONDS)]))

    feeding = asyncio.create_task(feed())
    try:
        yield
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


class Restarts:
    """Restarts of a broker, and what each took."""

    def __init__(self, crowd: Fleet, starts: Starts, figures: Figures) -> None:
        self._crowd = crowd
        self._starts = starts
        self._figures = figures
        self._seconds: dict[str, dict[str, list[float]]] = {}

    async def restart(self, how: str) -> None:
        """Stop the broker and start it again; wait until most workers start runs."""
        broker = self._crowd.broker
        assert broker is not None
        self._starts.look()
        told = time.monotonic()
        if how == "SIGTERM":
            broker.terminate()
            self._figures.demand(await broker.wait(END_SECONDS) == 0, "the broker's exit code is not 0")
        else:
            await broker.kill()
        gone = time.monotonic()
        await self._crowd.start_broker()
        ready = time.monotonic()
        gap = await self._starts.gap_after(ready)
        first = self._starts.first_after(ready)
        most = await self._starts.most_after(ready, len(self._crowd.workers) // 2)
        times = self._seconds.setdefault(how, {})
        for name, seconds in (
            (f"dispatch gap, {how}", gap),
            ("  until the broker has gone", gone - told),
            ("  until the next one is ready", ready - gone),
            ("  until a run starts", first - ready),
            ("  until half of the workers start", most - ready),
        ):
            times.setdefault(name, []).append(seconds)

    def tell(self, *, strict: bool) -> None:
        """Say what they took. The gap is bounded."""
        for times in self._seconds.values():
            (name, gaps), *parts = times.items()
            self._figures.bound(name, gaps, GAP, strict=strict)
            for part, seconds in parts:
                self._figures.say(part, spread(seconds))


class Starts:
    """When runs were started, and by which process."""

    def __init__(self, executions: Path) -> None:
        self._reader = Reader(executions)
        self._starts: list[tuple[float, int]] = []

    def look(self) -> float:
        """Return the time of the latest one."""
        new = [(e["monotonic_ns"] / 1e9, e["pid"]) for e in self._reader.more() if e["event"] == "start"]
        self._starts = sorted(self._starts + new)
        return self._starts[-1][0]

    def first_after(self, ready: float) -> float:
        """Return the time of the first one after this."""
        return next(at for at, _ in self._starts if at > ready)

    async def gap_after(self, ready: float) -> float:
        """Wait for the first one after the broker was ready again; return the longest gap since the last look."""
        before = self._starts[-1][0]
        await until(lambda: self.look() > ready, PATIENCE)
        return max(after - since for (since, _), (after, _) in pairwise(self._starts) if since >= before)

    async def most_after(self, ready: float, processes: int) -> float:
        """Wait until so many processes have started runs after the broker was ready; return when."""

        def firsts() -> list[float]:
            self.look()
            first: dict[int, float] = {}
            for at, pid in reversed(self._starts):
                if at <= ready:
                    break
                first[pid] = at
            return sorted(first.values())

        await until(lambda: len(firsts()) >= processes, PATIENCE)
        return firsts()[processes - 1]
