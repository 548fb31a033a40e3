"""A worker that is pushed the flow runs of two work queues, on nothing but `websockets`."""

import asyncio
import contextlib
import json
import os

from flows import FLOWS
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

BROKER = os.environ.get("RUNLANE_URL", "http://127.0.0.1:4200")
URL = BROKER.replace("http", "ws", 1) + "/api/task_runs/subscriptions/scheduled"
QUEUES = ["example/urgent", "example/default"]
held = {}  # (run, attempt) -> the task that works on it


async def execute(run, send):
    lease = {"id": run["id"], "attempt": run["attempt"]}
    await send({"type": "started", **lease})
    try:
        result = await FLOWS[run["flow_name"]](**run["parameters"])
        outcome = {"state": {"type": "COMPLETED"}, "result": result}
    except Exception as exc:
        outcome = {"state": {"type": "FAILED", "message": str(exc)}}
    if held.pop(key_of(run), None) is None:
        return  # lost meanwhile: it counts no more
    print(f"pushed: {run['parameters']} of {run['work_queue']}", flush=True)
    await send({"type": "finished", **lease, **outcome})


async def stop(frame, send):
    if task := held.get(key_of(frame)):
        task.cancel()
        await asyncio.wait([task])
        if held.pop(key_of(frame), None):  # neither lost, nor completed all the same
            print("stopped: it was cancelled", flush=True)
            lease = {"id": frame["id"], "attempt": frame["attempt"]}
            await send({"type": "finished", **lease, "state": {"type": "CANCELLED"}})


def forget(frame):
    if task := held.pop(key_of(frame), None):
        task.cancel()
        print("stopped: it is somebody else's", flush=True)


def key_of(frame):
    return frame["id"], frame["attempt"]


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
        await send({"type": "subscribe", "client_id": "pushed", "queues": QUEUES, "limit": 1})
        group.create_task(beat(welcome["beat_seconds"], send))
        async for message in ws:
            frames = json.loads(message)
            for frame in frames if isinstance(frames, list) else [frames]:
                match frame["type"]:
                    case "subscribed":
                        print("subscribed", flush=True)
                    case "runs":
                        for run in frame["runs"]:
                            held[key_of(run)] = group.create_task(execute(run, send))
                    case "cancel":
                        group.create_task(stop(frame, send))
                    case "lease_lost":
                        forget(frame)
                    case "error":
                        print(f"refused: {frame['message']}", flush=True)
        raise SystemExit("the broker has gone")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(main())
        except* ConnectionClosed as closed:
            raise SystemExit(f"closed: {closed.exceptions[0]}") from None
