"""`python -m tests.benchmarks`: measures, and prints a table of medians of interleaved repeats."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

from . import measures, prefect, upkeep
from .listing import listing
from .measures import Figures, median
from .restart import restart

Measure = Callable[[], Awaitable[Figures]]

#: Seconds after which a smoke run has failed; and those after which its process ends, whatever holds it.
_PATIENCE, _END = 90, 150


def _measures(*, smoke: bool) -> dict[str, Measure]:
    few = smoke
    return {
        "sequential": partial(measures.sequential, 100 if few else 5000),
        "limit10": partial(measures.pipelined, 300 if few else 10_000, 10),
        "limit100": partial(measures.pipelined, 300 if few else 10_000, 100),
        "latency": partial(measures.latency, 50 if few else 3000),
        "sockets": partial(measures.memory_of_sockets, 50 if few else 1000),
        "idle": partial(measures.idle, 10 if few else 100, 2 if few else 20),
        "backlog": partial(measures.backlog, 2000 if few else 100_000, 100 if few else 3000),
        "listing": partial(listing, 3000 if few else 1_000_000, explain=not few),
        "restart": partial(restart, 3000 if few else 1_000_000),
        "late": partial(upkeep.late, 500 if few else 100_000, 1 if few else 3),
        "retention": partial(upkeep.retention, 3000 if few else 1_000_000, 1 if few else 8),
        "forget": partial(upkeep.all_retention, 3000 if few else 1_000_000),
        "prefect": partial(prefect.dispatch, 60 if few else 2000, 20 if few else 500, 1 if few else 30),
        "due": partial(measures.due, 100 if few else 1000, 1 if few else 10),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="see that everything runs; the figures mean nothing")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="some of: %(choices)s", choices=_measures(smoke=True)
    )
    options = parser.parse_args()
    chosen = {
        name: run for name, run in _measures(smoke=options.smoke).items() if name in (options.only or [name])
    }
    repeats = 1 if options.smoke else options.repeats
    results: dict[str, list[Figures]] = {name: [] for name in chosen}
    for _ in range(repeats):
        for name, run in chosen.items():
            results[name].append(_measured(name, run, smoke=options.smoke))
    for name, figures in results.items():
        for figure, value in median(figures).items():
            values = sorted(repeat[figure] for repeat in figures)
            print(f"{name:<11} {figure:<42} {value:>12,.2f}  ({values[0]:,.2f} to {values[-1]:,.2f})")


def _measured(name: str, run: Measure, *, smoke: bool) -> Figures:
    """Measure once, and say so as it goes: of a run that hangs, the last line tells where."""
    print(f"{name}: ", end="", file=sys.stderr, flush=True)
    since = time.monotonic()
    if smoke:
        faulthandler.dump_traceback_later(_END, exit=True)
    figures = asyncio.run(_figures(run, _PATIENCE if smoke else None))
    faulthandler.cancel_dump_traceback_later()
    print(f"{time.monotonic() - since:.1f} s", file=sys.stderr, flush=True)
    return figures


async def _figures(run: Measure, seconds: float | None) -> Figures:
    async with asyncio.timeout(seconds):
        return await run()


if __name__ == "__main__":
    main()
