"""A worker that polls a work pool over HTTP: claims a run, makes it PENDING, executes it, says how it ended."""

import asyncio
import json
import time
from urllib.error import HTTPError, URLError

from flows import FLOWS

from api import call, post


def set_state(run, type, **fields):
    return post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": type, **fields}})["status"] == "ACCEPT"


def execute(run):
    if not set_state(run, "PENDING"):
        return  # somebody else has it, or there is no slot for it now
    set_state(run, "RUNNING")
    try:
        flow = FLOWS[call("GET", f"/flows/{run['flow_id']}")["name"]]
        result = asyncio.run(flow(**run["parameters"]))
    except Exception as exc:
        set_state(run, "FAILED", message=str(exc))
    else:
        set_state(run, "COMPLETED", data=result)
    print(f"polled: {run['parameters']}", flush=True)


def main():
    while True:
        # What is claimed is handed to nobody else, and pushed to nobody, for so many seconds.
        found = post("/work_pools/example/get_scheduled_flow_runs", {"limit": 1, "claim_seconds": 10})
        for one in found:
            execute(one["flow_run"])
        if not found:
            time.sleep(0.2)


if __name__ == "__main__":
    try:
        main()
    except HTTPError as exc:
        raise SystemExit(f"refused: {json.load(exc)['detail']}") from None
    except URLError as exc:
        raise SystemExit(f"the broker cannot be reached: {exc.reason}") from None
    except KeyboardInterrupt:
        pass
