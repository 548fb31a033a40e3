"""So many malformed and mutated frames, in every phase of both sockets, while others are served."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from .frames import WIDTH
from .rig import MIB, rig

#: Seconds for which nobody waits that frames be sent, at least; and how many a second are, at least.
_PATIENCE = 60.0
_PACE = 100


async def campaign(
    frames: int, seed: int, quiet_seconds: float = 10.0, *, width: int = WIDTH, aside: bool = True
) -> dict[str, Any]:
    """Send them, and say what came of it. `aside`: from a process that leaves the processor to all others."""
    with tempfile.TemporaryDirectory(prefix="runlane-fuzz-") as folder:
        async with rig(Path(folder), aside=aside) as it:

            async def send(count: int) -> dict[str, int]:
                return await it.peers.ask("send", count, width, seconds=_PATIENCE + count / _PACE)

            await it.peers.ask("plan", seed, frames)
            await it.healthy.ask("start")
            await asyncio.sleep(quiet_seconds)
            quiet = await it.healthy.ask("quiet")
            warm = await send(frames // 5)
            before = await it.settled_rss()
            await it.healthy.ask("warm")
            since = time.monotonic()
            rest = await send(frames)
            seconds = time.monotonic() - since
            meanwhile = await it.healthy.ask("meanwhile")
            growth = await it.settled_rss() - before
            end = await it.healthy.end()
            stuck = await it.drain()
            await it.place.end()
            it.audit()
            faults = it.faults()
    for line in faults[:10]:
        print(line)
    return {
        "seed": seed,
        "frames": warm["frames"] + rest["frames"],
        "connections": warm["connections"] + rest["connections"],
        "frames a second": rest["frames"] / seconds,
        "connections a second": rest["connections"] / seconds,
        "connections that were not closed": warm["open"] + rest["open"],
        "lines of the log that must not be": len(faults),
        "MiB of growth after the first fifth": growth / MIB,
        "healthy runs": end["submitted"],
        "healthy runs lost": end["lost"],
        "other runs stuck": stuck,
        "ms of a healthy dispatch, quiet, p50": quiet["p50"],
        "ms of a healthy dispatch, quiet, p99": quiet["p99"],
        "ms of a healthy dispatch, meanwhile, p50": meanwhile["p50"],
        "ms of a healthy dispatch, meanwhile, p99": meanwhile["p99"],
        "ms of a healthy dispatch, meanwhile, max": meanwhile["max"],
    }


def verdict(figures: dict[str, Any]) -> list[str]:
    """Return what is not as it must be, whatever the machine."""
    must_be_none = (
        "connections that were not closed", "lines of the log that must not be", "healthy runs lost",
        "other runs stuck",
    )  # fmt: skip
    return [name for name in must_be_none if figures[name]]
