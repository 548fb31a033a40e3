import os

from runlane import task


@task(pool="process", timeout=60)
def primes(start: int, stop: int) -> tuple[int, int]:
    """Return how many primes there are in the range, and the process that has counted them."""
    found = sum(all(n % divisor for divisor in range(2, int(n**0.5) + 1)) for n in range(max(start, 2), stop))
    return found, os.getpid()
