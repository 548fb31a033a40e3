"""Where the tests' time goes: `pytest --durations=0 -vv … | python -m tests.minutes` prints a table by folder."""

from __future__ import annotations

import re
import sys
from collections import Counter


def main() -> None:
    """Add up what pytest says of each test."""
    seconds: Counter[str] = Counter()
    for line in sys.stdin:
        found = re.match(r"([\d.]+)s (?:call|setup|teardown) +tests/(\w+)", line)
        if found is not None:
            seconds[found[2]] += float(found[1])  # type: ignore[assignment]
    for folder, total in seconds.most_common():
        print(f"| `tests/{folder}` | {total:.0f} s |")
    print(f"| together | {sum(seconds.values()):.0f} s |")


if __name__ == "__main__":
    main()
