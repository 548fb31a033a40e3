"""The core on a real database, with recorders in place of connections."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from runlane.protocol import messages as m
from runlane.protocol.closing import CloseCode
from runlane.protocol.states import StateType
from runlane_broker.core.core import Core
from runlane_broker.core.registry import Session
from runlane_broker.core.supervision import Swept
from runlane_broker.settings import Settings, Timers
from runlane_broker.storage.operations.sessions import BeatBroker
from runlane_broker.storage.records import Backlog, Created, FinalRun, NewRunRecord
from runlane_broker.storage.run_records import RunRecord
from runlane_broker.storage.sqlite import SqliteExecutor
from runlane_broker.storage.store import Store

from ..storage.database import audit
from ..support import PATIENCE, ControlledExecutor, FakeClock, make_run, new_id

#: Said by somebody, in this order: what was said and what it was about.
Event = tuple[Any, ...]


class Listener:
    """Writes down what it is told, and lets tests wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def note(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    def of(self, *kinds: str) -> list[Event]:
        """The events of some kinds."""
        return [event for event in self.events if event[0] in kinds]

    async def wait_for(self, kind: str, count: int = 1) -> Event:
        """Wait until there are so many events of a kind; return the last of them."""
        async with asyncio.timeout(PATIENCE):
            while len(found := self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found[count - 1]


class Worker(Listener):
    """A `SessionPort`, with what its worker would know and say. A key with a slash is a work queue's name."""

    def __init__(self, core: Core, *keys: str, limit: int = 1) -> None:
        super().__init__()
        self.core = core
        names = keys or ("k",)
        self.keys = tuple(name for name in names if "/" not in name)
        self.queues = tuple(name for name in names if "/" in name)
        self.limit = limit
        self.session: Session | None = None
        self.answer: m.Subscribed | None = None
        #: The connection is gone: nothing arrives any more.
        self.gone = False

    # What the core says

    def runs(self, runs: Sequence[m.PushedRun]) -> None:
        assert self.answer is not None, "pushed before it was subscribed"
        for run in runs:
            self.note("run", run.id, run.attempt, bytes(run.parameters))

    def recorded(self, run_id: str, attempt: int, *, gone: bool = False) -> None:
        self.note("recorded", run_id, attempt, gone)

    def lease_lost(self, run_id: str, attempt: int) -> None:
        self.note("lease_lost", run_id, attempt)

    def cancel(self, run_id: str, attempt: int, grace_seconds: float) -> None:
        self.note("cancel", run_id, attempt)

    def draining(self, retry_after: float) -> None:
        self.note("draining", retry_after)

    def close(self, code: CloseCode, reason: str) -> None:
        self.note("close", code, reason)

    # What the worker says

    def subscribe(self, earlier: Worker | None = None, running: Sequence[tuple[str, int]] = ()) -> None:
        """Subscribe, or resume the session of an earlier connection."""
        held = tuple(m.HeldRun(id=run_id, attempt=attempt) for run_id, attempt in running)
        frame = m.Subscribe(client_id="worker", keys=self.keys, queues=self.queues, limit=self.limit, running=held)
        if earlier is not None and earlier.answer is not None:
            token = earlier.answer.resume_token
            frame = msgspec.structs.replace(frame, session=earlier.answer.session, resume_token=token)
        self.core.sessions.subscribe(self, frame, self._opened)

    def _opened(self, session: Session | None, answer: m.Subscribed | Exception) -> None:
        if session is None or isinstance(answer, Exception):
            self.note("refused", answer)
            return
        if self.gone:
            self.core.sessions.disconnected(session)
            return
        self.session = session
        self.answer = answer
        self.note("subscribed", answer.session)

    async def connected(self, earlier: Worker | None = None, running: Sequence[tuple[str, int]] = ()) -> Worker:
        """Subscribe and wait for the answer."""
        self.subscribe(earlier, running)
        await self.wait_for("subscribed")
        return self

    @property
    def own(self) -> Session:
        assert self.session is not None
        return self.session

    def started(self, run_id: str, attempt: int = 1) -> None:
        self.core.reports.started(self.own, m.Started(id=run_id, attempt=attempt), self._settled)

    def finished(self, run_id: str, attempt: int = 1, type_: Any = "COMPLETED", **rest: Any) -> None:
        state = m.FinalState(type=type_)
        frame = m.Finished(id=run_id, attempt=attempt, state=state, **rest)
        self.core.reports.finished(self.own, frame, self._settled)

    def released(self, run_id: str, attempt: int = 1, delay: float | None = None) -> None:
        frame = m.ReleasedRun(id=run_id, attempt=attempt, delay=delay)
        self.core.reports.released(self.own, [frame], self._settled)

    def progress(self, run_id: str, current: float, attempt: int = 1) -> None:
        self.core.reports.progress(self.own, m.Progress(id=run_id, attempt=attempt, current=current))

    def beat(self) -> None:
        self.core.sessions.seen(self.own)

    def disconnect(self) -> None:
        """The connection is gone."""
        self.gone = True
        if self.session is not None:
            self.core.sessions.disconnected(self.session)

    def quit(self) -> None:
        self.core.sessions.quit(self.own)

    def _settled(self) -> None:
        self.note("settled")

    # What it has got

    @property
    def pushed(self) -> list[tuple[str, int]]:
        """Id and attempt of every run that was pushed, in order."""
        return [(run_id, attempt) for _, run_id, attempt, _ in self.of("run")]

    @property
    def pushed_ids(self) -> list[str]:
        return [run_id for run_id, _ in self.pushed]


class Producer(Listener):
    """A `Watcher`, and somebody who submits."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def run_finished(self, run: FinalRun) -> None:
        self.note("finished", run.id, run.type, run.result)

    def run_progress(self, run_id: str, current: float, total: float | None, message: str | None) -> None:
        self.note("progress", run_id, current)

    def submit(self, *runs: NewRunRecord) -> None:
        self.core.submissions.submit(runs, self._done)

    def _done(self, outcomes: Any) -> None:
        self.note("submitted", outcomes)

    async def submitted(self, *runs: NewRunRecord) -> tuple[Created, ...]:
        """Submit and wait for the answer."""
        before = len(self.of("submitted"))
        self.submit(*runs)
        _, outcomes = await self.wait_for("submitted", before + 1)
        assert isinstance(outcomes, tuple), outcomes
        return outcomes

    async def queued(self, key: str = "k", **changes: Any) -> str:
        """Submit one run and return its id."""
        run = make_run(key, **changes)
        await self.submitted(run)
        return run.id

    async def watch(self, *ids: str) -> list[str]:
        self.core.watching.watch(self, ids)
        ended, unknown = await self.core.watching.look_up(self, ids)
        for run in ended:
            self.run_finished(run)
        self.core.watching.unwatch(self, unknown)
        return unknown


@dataclass
class Broker:
    """A core that runs, and all that a test wants to turn."""

    core: Core
    clock: FakeClock
    executor: ControlledExecutor
    backlog: Backlog
    path: Path
    problems: list[dict[str, Any]] = field(default_factory=list)

    async def worker(self, *keys: str, limit: int = 1) -> Worker:
        return await Worker(self.core, *keys, limit=limit).connected()

    def producer(self) -> Producer:
        return Producer(self.core)

    async def quiet(self) -> None:
        """Wait until nothing happens any more: all written, all read, all pushed."""
        dispatching = self.core.dispatching
        for _ in range(1000):
            await asyncio.sleep(0)
            if dispatching._refills:
                await asyncio.wait(dispatching._refills)
            elif dispatching._cycle_handle is not None or self.core.store.waiting:
                await self.core.store.run(BeatBroker(self.core.broker_id))
            else:
                return
        raise AssertionError("it never comes to rest")

    async def settled_refills(self) -> None:
        """Wait until the windows are filled and what they give is on its way to the writer."""
        dispatching = self.core.dispatching
        for _ in range(1000):
            await asyncio.sleep(0)
            if dispatching._refills:
                await asyncio.wait(dispatching._refills)
            elif dispatching._cycle_handle is None:
                return

    async def repaired(self) -> None:
        """Let the auditor look until it finds nothing more: what is set right may show what else is wrong."""
        for _ in range(3):
            await self.quiet()
            if not await self.core.audit.run(settling=0.0):
                return
        raise AssertionError("the auditor is never content")

    async def run(self, run_id: str) -> RunRecord:
        record = await self.core.store.run_by_id(run_id)
        assert record is not None
        return record

    async def state(self, run_id: str) -> tuple[StateType, str]:
        record = await self.run(run_id)
        return record.state.type, record.state.name

    async def names(self, run_id: str) -> list[str]:
        return [state.name for state in await self.core.store.history(run_id)]

    def later(self, seconds: float, *alive: Worker) -> Swept:
        """Let time pass in steps of the sweep, while some workers give signs of life; return what was found."""
        sweep = self.core.settings.timers.sweep
        passed = 0.0
        found: list[Swept] = []
        while passed < seconds:
            step = min(sweep, seconds - passed)
            self.clock.advance(step)
            passed += step
            for worker in alive:
                worker.beat()
            found.append(self.core.supervision.sweep())
        silent, deaf, lost = (sum(getattr(swept, what) for swept in found) for what in ("silent", "deaf", "lost"))
        return Swept(silent, deaf, lost, any(swept.paused for swept in found))


@asynccontextmanager
async def broker(
    path: Path,
    *,
    clock: FakeClock | None = None,
    settings: Settings | None = None,
    start: bool = True,
    prepare: Callable[[ControlledExecutor], None] = lambda _: None,
    audited: bool = True,
    tampered: bool = False,
) -> AsyncGenerator[Broker]:
    """A broker on a file. Afterwards it looks at itself, the file is audited, and nothing may have failed.

    `tampered`: the test has written into the database past this broker's memory, which must be noticed.
    """
    clock = clock or FakeClock()
    broker_id = new_id()
    executor = ControlledExecutor(SqliteExecutor(path, clock, broker_id, source=random.Random(7)))
    prepare(executor)
    store = Store.sqlite(path, clock, broker_id, executor)
    core = Core(broker_id, "1.0", settings or Settings(), clock, store)
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    try:
        backlog = await core.start() if start else Backlog(0, 0)
        it = Broker(core, clock, executor, backlog, path, problems)
        yield it
        executor.fails = lambda _: False
        if audited and core.ready:
            found = await core.audit.run(settling=0.0)
            assert bool(found) == tampered, found
            if tampered:
                await it.repaired()
    finally:
        executor.fails = lambda _: False
        await core.close()
    assert problems == []
    if audited:
        with closing(sqlite3.connect(path)) as connection:
            audit(lambda text: connection.execute(text).fetchall())


def quick(**timers: float) -> Settings:
    """Settings with other timers."""
    return replace(Settings(), timers=replace(Timers(), **timers))
