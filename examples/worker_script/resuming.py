"""A worker without an SDK, on nothing but `websockets`: the protocol is open."""

import asyncio
import contextlib
import json
import os
import random

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

BROKER = os.environ.get("RUNLANE_URL", "http://127.0.0.1:4200")
URL = BROKER.replace("http", "ws", 1) + "/api/task_runs/subscriptions/scheduled"


async def reverse(text: str, seconds: float = 0) -> str:
    await asyncio.sleep(seconds)
    return text[::-1]


TASKS = {"text.reverse": reverse}
session = {}  # its id and token, to take it up again when the connection has broken
held = {}  # (run, attempt) -> the task that works on it, and what was said of it: until the broker has a verdict
socket = None


async def send(*frames):
    with contextlib.suppress(ConnectionClosed):  # what matters is in `held`, and is said again
        if socket is not None:
            await socket.send(json.dumps(frames))


async def execute(run):
    lease = {"id": run["id"], "attempt": run["attempt"]}

    async def say(type, **fields):
        frame = {"type": type, **lease, **fields}
        held[run["id"], run["attempt"]][1].append(frame)
        await send(frame)

    await say("started")
    try:
        async with asyncio.timeout(run.get("timeout")):
            result = await TASKS[run["task_key"]](**run["parameters"])
        await say("finished", state={"type": "COMPLETED"}, result=result)
    except Exception as exc:
        await say("finished", state={"type": "FAILED"}, error={"type": type(exc).__name__, "message": str(exc)})


def take(frame):
    match frame["type"]:
        case "runs":
            for run in frame["runs"]:
                held[run["id"], run["attempt"]] = (asyncio.create_task(execute(run)), [])
        case "recorded":
            forget(frame["runs"])  # on the broker's disk
        case "lease_lost":
            forget([frame])  # somebody else has it
        case "error":
            print("refused:", frame["message"], flush=True)


def forget(runs):
    for run in runs:
        if entry := held.pop((run["id"], run["attempt"]), None):
            entry[0].cancel()


async def frames(ws):
    while True:  # the broker answers every beat: one that is silent for so long is gone
        message = json.loads(await asyncio.wait_for(ws.recv(), timeout=10))
        for frame in message if isinstance(message, list) else [message]:
            yield frame


async def beat(seconds):
    for n in range(2**53):
        await send({"type": "beat", "n": n})
        await asyncio.sleep(seconds)


async def talk():
    """From `auth` until the connection breaks."""
    global socket
    async with connect(URL, subprotocols=["runlane.v1"], max_size=2**20) as ws:
        incoming = frames(ws)
        await ws.send(json.dumps({"type": "auth", "token": os.environ.get("RUNLANE_TOKEN")}))
        welcome = await anext(incoming)
        subscribe = {"type": "subscribe", "client_id": "script", "keys": list(TASKS), "limit": 4}
        if session:
            subscribe |= {**session, "running": [{"id": run, "attempt": attempt} for run, attempt in held]}
        await ws.send(json.dumps(subscribe))
        subscribed = await anext(incoming)
        session.update({name: subscribed[name] for name in ("session", "resume_token")})
        forget(subscribed.get("lost", []))
        socket = ws
        print(f"subscribed, {len(held)} runs in hand", flush=True)
        await send(*(frame for _, said in held.values() for frame in said))
        beating = asyncio.create_task(beat(welcome["beat_seconds"]))
        try:
            async for frame in incoming:
                take(frame)
        finally:
            beating.cancel()


async def main():
    while True:
        try:
            await talk()
        except ConnectionClosed as exc:
            if exc.rcvd is not None and exc.rcvd.code in (1008, 4001, 4403):
                raise SystemExit(f"the broker will not have us: {exc.rcvd.reason}") from None
        except (OSError, WebSocketException):  # (a TimeoutError is an OSError)
            pass
        await asyncio.sleep(random.uniform(0.1, 0.5))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
