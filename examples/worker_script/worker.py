"""A worker without an SDK, on nothing but `websockets`: the protocol is open."""

import asyncio
import contextlib
import json
import os

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

BROKER = os.environ.get("RUNLANE_URL", "http://127.0.0.1:4200")
URL = BROKER.replace("http", "ws", 1) + "/api/task_runs/subscriptions/scheduled"


async def reverse(text, seconds=0):
    await asyncio.sleep(seconds)
    return text[::-1]


TASKS = {"text.reverse": reverse}


async def execute(run, send):
    lease = {"id": run["id"], "attempt": run["attempt"]}
    await send({"type": "started", **lease})
    try:
        outcome = {"state": {"type": "COMPLETED"}, "result": await TASKS[run["task_key"]](**run["parameters"])}
    except Exception as exc:
        error = {"type": type(exc).__name__, "message": str(exc)}
        outcome = {"state": {"type": "FAILED"}, "error": error}
    await send({"type": "finished", **lease, **outcome})


async def beat(seconds, send):
    for n in range(2**53):  # a worker that is silent loses its runs
        await send({"type": "beat", "n": n})
        await asyncio.sleep(seconds)


async def main():
    async with connect(URL, subprotocols=["runlane.v1"]) as ws, asyncio.TaskGroup() as group:

        async def send(frame):
            await ws.send(json.dumps(frame))

        await send({"type": "auth", "token": os.environ.get("RUNLANE_TOKEN")})
        welcome = json.loads(await ws.recv())
        await send({"type": "subscribe", "client_id": "script", "keys": list(TASKS), "limit": 4})
        group.create_task(beat(welcome["beat_seconds"], send))
        async for message in ws:
            frames = json.loads(message)
            for frame in frames if isinstance(frames, list) else [frames]:
                print(frame, flush=True)
                if frame["type"] == "runs":
                    for run in frame["runs"]:
                        group.create_task(execute(run, send))
        raise SystemExit("the broker has gone")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(main())
        except* ConnectionClosed as closed:
            raise SystemExit(f"closed: {closed.exceptions[0]}") from None
