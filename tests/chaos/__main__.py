"""`python -m tests.chaos`: hurts real processes, and judges what they leave behind."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from .figures import Figures
from .outages import broker_restart, broker_stop, rolling, soak
from .random_faults import random_faults
from .storage import database_locked, disk_full
from .takeover import takeover

Scenario = Callable[[Path, argparse.Namespace, Figures], Awaitable[None]]


def _takeover(how: str) -> Scenario:
    return lambda folder, options, figures: takeover(
        folder, how, count=options.count or 100, scale=options.timers, seed=options.seed, figures=figures
    )


SCENARIOS: dict[str, Scenario] = {
    "random": lambda folder, options, figures: random_faults(
        folder, cycles=options.cycles, runs=options.runs, scale=options.timers, seed=options.seed, figures=figures
    ),
    "takeover-kill": _takeover("kill"),
    "takeover-stop": _takeover("stop"),
    "takeover-half-open": _takeover("half-open"),
    "broker-stop": lambda folder, options, figures: broker_stop(
        folder, seconds=40 * options.timers, runs=options.runs or 100, scale=options.timers, figures=figures
    ),
    "broker-restart": lambda folder, options, figures: broker_restart(
        folder, workers=options.count or 100, runs=options.runs or 800, scale=options.timers, figures=figures
    ),
    "disk-full": lambda folder, options, figures: disk_full(
        folder, seconds=30 * options.timers, scale=options.timers, figures=figures
    ),
    "locked": lambda folder, options, figures: database_locked(
        folder, seconds=30 * options.timers, scale=options.timers, figures=figures
    ),
    "rolling": lambda folder, options, figures: rolling(
        folder, rounds=options.count or 3, scale=options.timers, figures=figures
    ),
    "soak": lambda folder, options, figures: soak(
        folder, runs=options.runs or 200_000, scale=options.timers, figures=figures
    ),
}


def main() -> int:
    """Parse, run, print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--cycles", type=int, default=30, help="of the random scenario (default: %(default)s)")
    parser.add_argument("--runs", type=int, help="runs, in all (default: what the scenario is about)")
    parser.add_argument("--count", type=int, help="kills, workers or rounds (default: what the scenario is about)")
    parser.add_argument("--timers", type=float, default=1.0, help="scale of the broker's timers (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=["random"], help="default: random")
    parser.add_argument("--folder", type=Path, help="for what the scenarios leave; removed unless one fails")
    parser.add_argument("--end", type=float, help="seconds after which it ends with its stacks, whatever holds it")
    options = parser.parse_args()
    if options.end is not None:
        faulthandler.dump_traceback_later(options.end, exit=True)
    failed = [name for name in options.only if not _run(name, options)]
    return 1 if failed else 0


def _run(name: str, options: argparse.Namespace) -> bool:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-", dir=options.folder))
    figures = Figures()
    print(f"--- {name}", flush=True)
    since = time.monotonic()
    try:
        asyncio.run(_until_told(SCENARIOS[name](folder, options, figures)))
    except asyncio.CancelledError:
        figures.failures.append("it was told to end before that")
    except Exception:
        figures.failures.append(traceback.format_exc())
    figures.say("took", f"{time.monotonic() - since:.0f} s")
    for line in figures.lines:
        print(line)
    for failure in figures.failures[:20]:
        print(f"FAILED: {failure}")
    if len(figures.failures) > 20:
        print(f"FAILED: and {len(figures.failures) - 20} more")
    if figures.failures:
        print(f"what is left is in {folder}", flush=True)
        return False
    shutil.rmtree(folder)
    return True


async def _until_told(scenario: Awaitable[None]) -> None:
    """Run a scenario; SIGTERM and SIGHUP end it as an interrupt does: every process that it started is killed."""
    task = asyncio.ensure_future(scenario)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await task


if __name__ == "__main__":
    sys.exit(main())
