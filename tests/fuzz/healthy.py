"""A producer and a worker that do nothing wrong, in a process of their own, and how long they wait.

A command ends a window and is answered with its figures; the end of the input ends the process.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from dataclasses import dataclass, field

import msgspec

from runlane.protocol import codec
from runlane.protocol import messages as m
from tests.faults.harness import Wire, producer_wire, worker_wire

from .asking import answer, commands

KEY = "healthy"
#: Seconds between two submits: well below what a broker can do, so that nothing waits for what it did before.
PACE = 0.01
#: Runs on their way at most: on a machine that is too slow for the pace, it waits.
MOST = 100


def id_of(number: int) -> str:
    """Return the id of the n-th run: whoever knows the number can lie about it."""
    return f"0192f3a0-5c1e-7d2a-9b3f-{number:012x}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker is."""

    url: str


@dataclass
class Ledger:
    """What was handed in, and what came of it. Times are monotonic, in seconds."""

    number: int = 0
    sent: dict[int, float] = field(default_factory=dict[int, float])
    waits: list[float] = field(default_factory=list[float])
    finished: set[int] = field(default_factory=set[int])

    def window(self) -> dict[str, float]:
        """Return the figures of what was dispatched since the last time, in milliseconds."""
        waits, self.waits = sorted(self.waits), []
        if not waits:
            return {"samples": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
        return {
            "samples": len(waits),
            "p50": waits[len(waits) // 2] * 1e3,
            "p99": waits[int(len(waits) * 0.99)] * 1e3,
            "max": waits[-1] * 1e3,
        }


async def produce(wire: Wire, ledger: Ledger, stop: asyncio.Event) -> None:
    """Hand in a run when it is time for one, however the last ones fare."""
    parameters = msgspec.Raw(b'{"n":1}')
    due = time.monotonic()
    while not stop.is_set():
        due = max(due + PACE * random.uniform(0.5, 1.5), time.monotonic() - PACE)
        await asyncio.sleep(due - time.monotonic())
        if ledger.number - len(ledger.finished) >= MOST:
            continue
        number = ledger.number
        ledger.number += 1
        run = m.NewRun(id=id_of(number), task_key=KEY, parameters=parameters)
        ledger.sent[number] = time.monotonic()
        await wire.send(m.Submit(ref=number, runs=(codec.encode_part(run),)), m.Watch(ids=(run.id,)))


async def hear(wire: Wire, ledger: Ledger) -> None:
    while True:
        for frame in await wire.frames():
            match frame:
                case m.RunFinished(id=run_id, state=state):
                    assert state.type == "COMPLETED", frame
                    ledger.finished.add(int(run_id[-12:], 16))
                case m.Submitted(runs=runs):
                    assert all(run.created for run in runs), frame
                case _:
                    raise AssertionError(frame)


async def work(wire: Wire, ledger: Ledger) -> None:
    completed = m.FinalState(type="COMPLETED")
    while True:
        for frame in await wire.frames():
            if isinstance(frame, m.Recorded):
                continue
            assert isinstance(frame, m.Runs), frame
            now = time.monotonic()
            for run in frame.runs:
                assert run.attempt == 1, "it was never lost"
                ledger.waits.append(now - ledger.sent[int(run.id[-12:], 16)])
            await wire.send(*(m.Finished(id=run.id, attempt=run.attempt, state=completed) for run in frame.runs))


async def beat(wire: Wire) -> None:
    while True:
        await asyncio.sleep(1)
        await wire.send(m.Beat())


async def main(url: str) -> None:
    """Work until the input ends."""
    place = Place(url)
    ledger, stop = Ledger(), asyncio.Event()
    async with producer_wire(place) as producer, worker_wire(place) as worker:
        await worker.send(m.Subscribe(client_id="healthy", keys=(KEY,), limit=100))
        await worker.expect(m.Subscribed)
        # The first that fails ends all: who only stopped reading would be closed by the broker, and be its fault.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(c) for c in (work(worker, ledger), hear(producer, ledger), beat(worker))]
            producing = group.create_task(produce(producer, ledger, stop))
            async for name in commands():
                answer({"window": name, **ledger.window()})
            stop.set()
            await producing
            deadline = time.monotonic() + 20
            while len(ledger.finished) < ledger.number and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
    answer({"submitted": ledger.number, "lost": ledger.number - len(ledger.finished)})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
