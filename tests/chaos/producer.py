"""`python -m tests.chaos.producer`: a process that submits runs and watches them to their ends.

Before it sends anything it notes it. Started again on the same journal, as after a kill, it submits again what
has no answer (with the same id: nobody knows whether the first time counted), and watches what has no end.
SIGTERM: it submits no more, waits for all ends, and exits.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from runlane import Client
from runlane.protocol.ids import uuid7
from runlane.protocol.messages import NewRun
from runlane.settings import Settings

from .journal import Journal, read

#: Runs without an end, at most: a producer that is not served does not pile up for ever.
MAX_OPEN = 2000
#: Of so many of the latest runs with an idempotency key one is submitted again.
KEPT = 20
#: Up to here in [0, 1) a run returns at once; up to there it neither fails nor is it submitted twice.
PLAIN, GENTLE = 0.2, 0.91


class Workload:
    """Makes runs: mostly quick, some long, delayed, failing at first, or submitted twice."""

    def __init__(self, chance: random.Random, scale: float, *, most: float) -> None:
        self._chance = chance
        self._scale = scale
        self._most = most
        self._keyed: list[NewRun] = []

    def next(self) -> NewRun:
        what = self._chance.uniform(0.0, self._most)
        if what < PLAIN:
            return _run("work", seconds=[0.0])
        if what < 0.75:
            return _run("work", seconds=[self._chance.uniform(0.0, 0.05)])
        if what < 0.87:
            return _run("work", seconds=[self._scale * self._chance.uniform(0.5, 6.0), self._scale])
        if what < GENTLE:
            due = datetime.now(UTC) + timedelta(seconds=self._chance.uniform(0.0, 3.0))
            return msgspec.structs.replace(_run("work", seconds=[0.0]), scheduled_time=due)
        if what < 0.95:
            return msgspec.structs.replace(_run("flaky", failures=1), retries=3, retry_delay=0.1)
        if what < 0.98 or not self._keyed:
            keyed = msgspec.structs.replace(_run("work", seconds=[0.02]), idempotency_key=uuid7())
            self._keyed = [*self._keyed[-KEPT:], keyed]
            return keyed
        return msgspec.structs.replace(self._chance.choice(self._keyed), id=uuid7())


def _run(key: str, **parameters: object) -> NewRun:
    return NewRun(id=uuid7(), task_key=key, parameters=msgspec.Raw(msgspec.json.encode(parameters)))


class Producer:
    """Submits, and takes each run to its end."""

    def __init__(self, client: Client, journal: Journal, max_open: int = MAX_OPEN) -> None:
        self._client = client
        self._journal = journal
        self._max_open = max_open
        self._lives: set[asyncio.Task[None]] = set()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self.enough = asyncio.Event()

    def resume(self, path: Path) -> int:
        """Go on where an earlier process of this journal was killed; return how many runs it had submitted."""
        submitted: dict[str, NewRun] = {}
        answers: dict[str, str | None] = {}
        ended: set[str] = set()
        for event in read(path):
            match event["event"]:
                case "submit":
                    submitted[event["run"]] = msgspec.convert(event["new"], _Kept).new()
                case "answer":
                    answers[event["run"]] = event["is"]
                case "end":
                    ended.add(event["run"])
        for run_id, new in submitted.items():
            if run_id not in answers:
                self._begin(self._whole(new))
            elif (answer := answers[run_id]) is not None and answer not in ended:
                self._begin(self._watch(answer))
        return len(submitted)

    async def submit(self, new: NewRun) -> None:
        """Begin a run's life, as soon as there are not too many."""
        while len(self._lives) >= self._max_open:
            await asyncio.wait(self._lives, return_when=asyncio.FIRST_COMPLETED)
        self._begin(self._whole(noted(self._journal, new)))

    def _begin(self, life: object) -> None:
        task = asyncio.create_task(life)  # type: ignore[arg-type]
        self._lives.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._lives.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._journal.note("trouble", error=repr(error))

    async def _whole(self, new: NewRun) -> None:
        (answer,) = await self._client.submit_each([new])
        if answer.error is not None:
            self._journal.note("answer", run=new.id, **{"is": None}, error=answer.error.code)
            return
        self._journal.note("answer", run=new.id, **{"is": answer.id}, created=answer.created)
        await self._watch(answer.id)

    async def _watch(self, run_id: str) -> None:
        """Wait for a run's end; two that have the same one (by its idempotency key) are told together."""
        if run_id not in self._watches:
            self._watches[run_id] = asyncio.create_task(self._until_told(run_id))
        await self._watches[run_id]

    async def _until_told(self, run_id: str) -> None:
        self._journal.note("watch", run=run_id)
        end = await self._client.watch(run_id)
        result = bytes(end.result).decode() if end.state.type == "COMPLETED" else None
        self._journal.note("end", run=run_id, state=end.state.type, name=end.state.name, result=result)

    async def all_ended(self) -> None:
        while self._lives:
            await asyncio.wait(self._lives)


class _Kept(msgspec.Struct):
    """What a journal keeps of a run, so that another process can submit it again."""

    id: str
    task_key: str
    parameters: dict[str, object]
    idempotency_key: str | None
    retries: int
    retry_delay: float
    scheduled_time: datetime | None

    def new(self) -> NewRun:
        raw = msgspec.Raw(msgspec.json.encode(self.parameters))
        return NewRun(**{**msgspec.structs.asdict(self), "parameters": raw})


def _kept(new: NewRun) -> dict[str, object]:
    kept = {name: getattr(new, name) for name in _Kept.__struct_fields__}
    return msgspec.to_builtins({**kept, "parameters": msgspec.json.decode(new.parameters)})


def noted(journal: Journal, new: NewRun) -> NewRun:
    """Note a run that is about to be submitted, and return it."""
    journal.note("submit", run=new.id, key=new.idempotency_key, new=_kept(new))
    return new


async def produce(options: argparse.Namespace) -> None:
    """Submit at the given rate until there are enough or somebody says so, then wait for all ends."""
    journal = Journal(options.journal)
    async with Client(Settings(url=options.url)) as client:
        producer = Producer(client, journal)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.enough.set)
        count = producer.resume(options.journal)
        most = PLAIN if options.plain else GENTLE if options.gentle else 1.0
        workload = Workload(random.Random(options.seed + count), options.scale, most=most)
        print("producing", flush=True)
        due = time.monotonic()
        while count < options.count and not producer.enough.is_set():
            await producer.submit(workload.next())
            count += 1
            due = max(
                due + 1 / options.rate, time.monotonic() - 1
            )  # what was missed in a pause is not made up for
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        print("enough", flush=True)
        await producer.all_ended()
    journal.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.producer", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=100.0, help="runs a second")
    parser.add_argument("--count", type=int, default=1 << 60, help="runs, those of the journal included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the durations of long runs")
    parser.add_argument("--gentle", action="store_true", help="nothing that fails or is submitted twice")
    parser.add_argument("--plain", action="store_true", help="nothing but runs that return at once")
    asyncio.run(produce(parser.parse_args()))


if __name__ == "__main__":
    main()
