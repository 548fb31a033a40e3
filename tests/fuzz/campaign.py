"""So many malformed and mutated frames, in every phase of both sockets, while others are served."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runlane.protocol.ids import uuid7

from . import raw
from .cases import PHASES, Phase, Source, conversation, cuts, table
from .healthy import id_of
from .rig import MIB, rig

#: Connections at once.
WIDTH = 16


def plan(seed: int, frames: int) -> Iterator[tuple[Phase, list[bytes]]]:
    """Yield what each connection sends, so many frames in all: the table and the cuts, as far as they fit."""
    source = Source(seed, _ids)
    systematic = itertools.chain(table(source), cuts(source))
    left = frames
    for phase, messages in itertools.islice(systematic, frames // 2):
        yield phase, messages
        left -= len(messages)
    while left > 0:
        phase = source.random.choice(PHASES)
        messages = conversation(source, phase)[:left]
        yield phase, messages
        left -= len(messages)


def _ids(draw: random.Random) -> str:
    """Somebody's run, or nobody's."""
    return (
        id_of(draw.randrange(20_000)) if draw.random() < 0.5 else uuid7(draw.getrandbits(47), draw.getrandbits(74))
    )


async def campaign(frames: int, seed: int) -> dict[str, Any]:
    """Send them, and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="runlane-fuzz-") as folder:
        async with rig(Path(folder)) as it:
            todo = plan(seed, frames)
            await it.healthy.window("start")
            await asyncio.sleep(1)
            quiet = await it.healthy.window("quiet")
            warm = await _send(it.place.port, todo, frames // 5)
            before = await it.settled_rss()
            await it.healthy.window("warm")
            since = time.monotonic()
            rest = await _send(it.place.port, todo, frames)
            seconds = time.monotonic() - since
            meanwhile = await it.healthy.window("meanwhile")
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


async def _send(port: int, todo: Iterator[tuple[Phase, list[bytes]]], frames: int) -> dict[str, int]:
    """Send what there is to send, up to so many frames, over several connections at once."""
    counts = {"frames": 0, "connections": 0, "open": 0}

    async def sender() -> None:
        while counts["frames"] < frames:
            if (one := next(todo, None)) is None:
                return
            phase, messages = one
            counts["frames"] += len(messages)
            counts["connections"] += 1
            counts["open"] += not await raw.say(port, phase.socket, [*phase.opening, *messages])
            if counts["connections"] % 2000 == 0:
                print(counts, flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(WIDTH):
            group.create_task(sender())
    return counts


def verdict(figures: dict[str, Any]) -> list[str]:
    """Return what is not as it must be, whatever the machine."""
    must_be_none = (
        "connections that were not closed", "lines of the log that must not be", "healthy runs lost",
        "other runs stuck",
    )  # fmt: skip
    return [name for name in must_be_none if figures[name]]
