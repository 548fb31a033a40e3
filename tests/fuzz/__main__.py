"""`python -m tests.fuzz`: very many frames, or hostile peers; prints the figures, fails on a fault."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from typing import Any

from .campaign import campaign, verdict
from .frames import WIDTH
from .hostile import PAIRS, WAVES, hostile
from .hostile import verdict as hostile_verdict


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("what", choices=("frames", "hostile"))
    parser.add_argument("--frames", type=int, default=200_000, help="how many (default: %(default)s)")
    parser.add_argument("--width", type=int, default=WIDTH, help="connections that send frames at once")
    parser.add_argument("--peers", type=int, default=100, help="of each hostile kind (default: %(default)s)")
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, help="quiet and hostile windows (default: %(default)s)"
    )
    parser.add_argument(
        "--waves", type=int, default=WAVES, help="of hostile peers in a window (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="the same seed, the same frames")
    options = parser.parse_args()
    if options.what == "frames":
        figures = asyncio.run(campaign(options.frames, options.seed, width=options.width))
        wrong = [*verdict(figures), *_beyond(figures, {"MiB of growth after the first fifth": 16})]
    else:
        figures = asyncio.run(hostile(options.peers, options.pairs, options.waves))
        wrong = hostile_verdict(figures)
    for name, value in figures.items():
        print(f"{name:<60} {value:>14,.2f}" if isinstance(value, float) else f"{name:<60} {value:>14,}")
    print("not as it must be: " + ", ".join(wrong) if wrong else "all as it must be")
    return bool(wrong)


def _beyond(figures: dict[str, Any], limits: dict[str, float]) -> list[str]:
    return [name for name, limit in limits.items() if figures[name] > limit]


if __name__ == "__main__":
    sys.exit(main())
