"""Live through many seeds: `python -m tests.simulation 10000 --from 0`. Ends with 1 if not all was well."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import traceback

from .report import trace
from .world import simulate


def main() -> int:
    """Run seeds over all processors."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--most", type=int, default=10, help="stop after so many that are not well")
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.seeds)
    bad: list[int] = []
    runs, virtual, cpu, done = 0, 0.0, 0.0, 0
    with multiprocessing.get_context("spawn").Pool(args.jobs, maxtasksperchild=500) as pool:
        for seed, text, count, seconds, used in pool.imap_unordered(_live, seeds, chunksize=1):
            runs, virtual, cpu, done = runs + count, virtual + seconds, cpu + used, done + 1
            if text:
                bad.append(seed)
                print(text, flush=True)
            if done % 500 == 0:
                print(f"{done} seeds, {len(bad)} not well", flush=True)
            if len(bad) >= args.most:
                pool.terminate()
                break
    print(
        f"{done} seeds from {args.first}: {runs} runs in {virtual / 3600:.1f} virtual hours, "
        f"{cpu / max(done, 1):.2f} CPU seconds a seed; {len(bad)} not well{': ' if bad else ''}{sorted(bad) or ''}"
    )
    return 1 if bad else 0


def _live(seed: int) -> tuple[int, str, int, float, float]:
    before = time.process_time()
    try:
        outcome = simulate(seed)
    except Exception:
        return seed, f"seed {seed}: it broke off\n  {traceback.format_exc()}", 0, 0.0, 0.0
    text = "" if outcome.well else trace(outcome)
    return seed, text, outcome.weather.runs, outcome.seconds, time.process_time() - before
