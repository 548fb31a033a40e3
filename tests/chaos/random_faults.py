"""The random scenario: four workers, two producers, one broker; and no two minutes the same."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.faults.harness import until
from tests.faults.proxy import proxy

from .figures import Figures
from .fleet import Fleet, fleet
from .hogs import NoDisk, SmallDisk, small_disk
from .nemesis import END_SECONDS, Nemesis
from .schedule import schedule
from .verdict import judge, say_takeovers

WORKERS = 4
#: Slots of each worker: a run takes 0.4 s in the mean, and half of the time half of the workers are away.
LIMIT = 48
#: Megabytes of the database's disk, beside what the runs take.
DISK = 64
#: Bytes that a run takes on the disk, at most: rows, history, indexes.
RUN_BYTES = 3000
#: A cycle at the default timers, in seconds: what the producers' rate is worked out from.
CYCLE = 2.6


async def random_faults(
    folder: Path, *, cycles: int, runs: int | None, scale: float, seed: int, figures: Figures
) -> None:
    """Run so many cycles; the producers make at least `runs` runs, or what comes at 100 a second."""
    async with AsyncExitStack() as stack:
        size = DISK + (runs or 200 * cycles) * RUN_BYTES // 1_000_000
        disk = _disk(stack, folder / "disk", size, figures)
        database = folder / "disk" / "runlane.db" if disk else None
        crowd = await stack.enter_async_context(fleet(folder, scale, database=database))
        await _populate(stack, crowd, cycles, runs, seed)
        since = time.monotonic()
        nemesis = Nemesis(crowd, disk)
        for step in schedule(seed, cycles, scale, disk=disk is not None):
            await nemesis.carry_out(step)
        await nemesis.heal()
        healed = time.monotonic()
        figures.say("cycles", f"{cycles} in {healed - since:.0f} s, seed {seed}, timers x {scale:g}")
        figures.say("faults", ", ".join(f"{count} {kind}" for kind, count in nemesis.counts.most_common()))
        await _come_to_rest(crowd, nemesis, runs, figures)
        bad = [exit for exit in nemesis.exits if exit[1] != 0]
        figures.demand(not bad, f"exit codes: {bad}")
        verdict = judge(folder, crowd.place.database, figures, strict=scale >= 0.5)
        say_takeovers(verdict, figures)


def _disk(stack: AsyncExitStack, folder: Path, megabytes: int, figures: Figures) -> SmallDisk | None:
    try:
        return stack.enter_context(small_disk(folder, megabytes))
    except NoDisk as exc:
        figures.say("disk full", f"left out: a disk of our own takes root ({exc})")
        return None


async def _populate(stack: AsyncExitStack, crowd: Fleet, cycles: int, runs: int | None, seed: int) -> None:
    """Half of the workers and of the producers stand behind a proxy each."""
    await crowd.start_broker()
    between = [await stack.enter_async_context(proxy(crowd.place.port)) for _ in range(3)]
    for n in range(WORKERS):
        await crowd.add_worker(limit=LIMIT, proxy=between[n - 2] if n >= 2 else None)
    await crowd.subscribed()
    # Twice what would do if nothing went wrong: half of the time one of them, or the broker, is away.
    rate = 50.0 if runs is None else max(1.0, runs / (cycles * CYCLE * max(crowd.scale, 0.4)))
    for n in range(2):
        options = ("--seed", seed * 2 + n, "--rate", rate, "--scale", max(crowd.scale, 0.2))
        if runs is not None:
            options = (*options, "--count", runs // 2)
        await crowd.add_producer(*options, proxy=between[2] if n else None)


async def _come_to_rest(crowd: Fleet, nemesis: Nemesis, runs: int | None, figures: Figures) -> None:
    """Let the producers see all ends; then end everybody."""
    since = time.monotonic()
    for party in crowd.producers:
        assert party.process is not None
        if runs is None:
            party.process.terminate()
        patience = END_SECONDS if runs is None else 600.0
        try:
            nemesis.exits.append((party.name, await party.process.wait(patience)))
        except TimeoutError:
            figures.failures.append(f"{party.name} still waits for ends, {patience:g} s after the last fault")
    figures.say("all ends heard, after the last fault", f"{time.monotonic() - since:.1f} s")
    stops = [crowd.stop(party, END_SECONDS) for party in crowd.workers]
    for party, code in zip(crowd.workers, await asyncio.gather(*stops), strict=True):
        nemesis.exits.append((party.name, code))
    assert crowd.broker is not None
    broker = crowd.broker
    broker.terminate()
    nemesis.exits.append(("broker", await broker.wait(END_SECONDS)))
    await until(lambda: not broker.is_running)
