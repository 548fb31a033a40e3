"""Priorities of a pool's work queues: unique, 1 first, gaps allowed. Pure.

A pool's priorities are a mapping from queue to priority. Whoever asks for a priority gets it; who has it already
moves down, and so on as far as it must, and nobody else moves: those are the fewest changes that keep the order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

#: The queue that everybody else lets go first.
FIRST = 1


def free_priority(taken: Collection[int]) -> int:
    """Return what a queue gets that asks for nothing: the first gap, else one after the last."""
    occupied = set(taken)
    return next(priority for priority in range(FIRST, len(occupied) + FIRST + 1) if priority not in occupied)


def rank(priorities: Mapping[str, int], queue: str, wanted: int) -> dict[str, int]:
    """Return the priorities that change when `queue`, new or not, asks for `wanted`: its own and others'.

    Raises ValueError for a priority below 1.
    """
    if wanted < FIRST:
        raise ValueError(f"a priority is at least {FIRST}")
    holders = {priority: name for name, priority in priorities.items() if name != queue}
    changes = {} if priorities.get(queue) == wanted else {queue: wanted}
    while (name := holders.get(wanted)) is not None:
        wanted += 1
        changes[name] = wanted
    return changes


def steps(priorities: Mapping[str, int], changes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield the changes in an order in which no two queues ever have the same priority.

    The last goes first, each into what the one before it has left. A queue that moves up, across others that make
    room for it, waits behind everybody meanwhile.
    """
    up = [name for name in changes if name in priorities and changes[name] < priorities[name]]
    aside = max((*priorities.values(), *changes.values()), default=FIRST) + 1
    for i, name in enumerate(up):
        yield name, aside + i
    yield from sorted(changes.items(), key=lambda change: change[1], reverse=True)
