import time

from tasks import primes

from runlane import gather

starts = range(0, 200_000, 20_000)
begun = time.perf_counter()
counts = gather(*primes.map(starts, [start + 20_000 for start in starts]), timeout=60)
seconds = time.perf_counter() - begun
print(f"{sum(found for found, _ in counts)} primes below 200000, in {seconds:.1f} s")
print(f"counted by {len({process for _, process in counts})} processes")
