"""Submits by the task's key: this program has no code of the task."""

import sys

from runlane import task


@task(key="text.reverse")
def reverse(text: str, seconds: float = 0) -> str: ...


print(reverse.delay(" ".join(sys.argv[1:]) or "live on no evil").result(timeout=30))
