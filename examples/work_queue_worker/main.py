"""Makes a pool with two queues, and flow runs in them; waits until they have ended.

`python main.py prepare` makes the pool alone: a queue must be there before a worker can serve it.
"""

import sys
import time

from api import call, make, post

RUNS = 20


def prepare():
    make("/work_pools/", {"name": "example", "type": "process", "concurrency_limit": 2})
    make("/work_pools/example/queues", {"name": "urgent", "priority": 1})


def run():
    flow = post("/flows/", {"name": "report"})
    runs = []
    for day in range(RUNS):
        queue = "urgent" if day % 4 == 0 else "default"
        wanted = {"flow_id": flow["id"], "parameters": {"day": day}, "state": {"type": "SCHEDULED"}}
        runs.append(post("/flow_runs/", {**wanted, "work_pool_name": "example", "work_queue_name": queue})["id"])
    states = {}
    while set(states.values()) != {"COMPLETED"}:
        time.sleep(0.1)
        states = {run_id: call("GET", f"/flow_runs/{run_id}")["state"]["type"] for run_id in runs}
    print(f"{len(states)} flow runs have completed")


if __name__ == "__main__":
    prepare()
    if sys.argv[1:] != ["prepare"]:
        run()
