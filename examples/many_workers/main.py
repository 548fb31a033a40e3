import sys
from collections import Counter

from tasks import resize

from runlane import gather

pictures = int(sys.argv[1]) if len(sys.argv) > 1 else 400
workers = gather(*resize.map(range(pictures)), timeout=120)
for worker, count in sorted(Counter(workers).items()):
    print(f"process {worker}: {count} pictures")
print(f"together: {len(workers)} pictures")
