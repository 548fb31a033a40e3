"""What malformed and mutated frames are sent, and the sending: over many connections at once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator

from runlane.protocol.ids import uuid7
from runlane_broker.serving.turns import CROWD

from . import prefect, raw
from .cases import PHASES, Phase, Source, conversation, cuts, table
from .healthy import id_of

#: Connections at once: so many strangers are served without rests. Fewer get a seventh of the broker's time, and
#: 200,000 frames take several times as long.
WIDTH = CROWD + CROWD // 2


def plan(seed: int, frames: int) -> Iterator[tuple[Phase, list[bytes]]]:
    """Yield what each connection sends, so many frames in all: the table and the cuts, as far as they fit."""
    source = Source(seed, _ids)
    systematic = itertools.chain(table(source), cuts(source))
    left = frames
    for phase, messages in itertools.islice(systematic, frames // 2):
        yield phase, messages
        left -= len(messages)
    while left > 0:
        phase = source.random.choice((*PHASES, *prefect.PHASES))
        said = conversation if phase in PHASES else prefect.conversation
        messages = said(source, phase)[:left]
        yield phase, messages
        left -= len(messages)


def _ids(draw: random.Random) -> str:
    """Somebody's run, or nobody's."""
    return (
        id_of(draw.randrange(20_000)) if draw.random() < 0.5 else uuid7(draw.getrandbits(47), draw.getrandbits(74))
    )


async def send(port: int, todo: Iterator[tuple[Phase, list[bytes]]], frames: int, width: int) -> dict[str, int]:
    """Send what there is to send, up to so many frames, over `width` connections at once.

    Returns the counts, that of connections that stay open among them.
    """
    counts = {"frames": 0, "connections": 0, "open": 0}

    async def sender() -> None:
        while counts["frames"] < frames:
            if (one := next(todo, None)) is None:
                return
            phase, messages = one
            counts["frames"] += len(messages)
            counts["connections"] += 1
            counts["open"] += not await raw.say(port, phase.socket, [*phase.opening, *messages])

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(sender())
    return counts
