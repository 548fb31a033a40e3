"""A seed, from its first event to the verdict.

A world is a broker with its disk, workers, producers and somebody who cancels runs, all on one virtual loop. For a
while things happen to them; then everything is mended, and when nothing is left to do the history is judged, and
the broker's memory must be as empty as its database.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from runlane.protocol.states import StateType
from runlane_broker.core.core import Core
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.storage.tables import TASK_RUN

from .. import judge as j
from .broker import Broker, Chance, VirtualClock, determined
from .disk import Disk
from .loop import Process, VirtualLoop
from .network import Link
from .producer import Producer, Wish, in_seconds, new_run
from .weather import Weather
from .worker import Worker

#: Virtual seconds within which all must be done once everything is mended.
_MENDED: Final = 300.0
_FINAL: Final = "('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"


@dataclass(frozen=True)
class Outcome:
    """What became of a seed. `residue` is what the broker's memory still holds; `problems` are tracebacks."""

    seed: int
    history: list[j.Event]
    violations: list[j.Violation]
    residue: list[str]
    problems: list[str]
    weather: Weather
    seconds: float

    @property
    def well(self) -> bool:
        return not (self.violations or self.residue or self.problems)


def simulate(seed: int) -> Outcome:
    """Live through a seed."""
    loop = VirtualLoop()
    world = World(seed, loop)
    with _quietly():
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(world.live())
        finally:
            loop.run_until_complete(_end_of(world))
            asyncio.set_event_loop(None)
            loop.close()
            world.disk.close()


@contextmanager
def _quietly() -> Iterator[None]:
    """Faults are ordinary here: nobody reads what the broker has to say of them. And nothing is collected."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(level)


async def _end_of(world: World) -> None:
    """Cancel all that is left of anybody, and what this sets off: a coroutine whose loop is gone cannot end."""
    own = asyncio.current_task()
    dead = list(world.processes)
    while left := [task for task in world.loop.tasks if task is not own and not task.done()]:
        for task in left:
            task.cancel()
        while dead:
            dead.pop().bury()
        await asyncio.gather(*left, return_exceptions=True)


class World:
    """Everybody, and what is done to them."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.source = random.Random(seed)
        self._company = random.Random(f"company of {seed}")
        self.weather = Weather.of(self.source)
        loop.turn = random.Random(f"turns of {seed}").choice([0.0, 0.0, 0.002, 0.02])
        self.clock = VirtualClock(loop)
        self.chance = Chance(random.Random(f"ids of {seed}"), self.clock)
        self.disk = Disk(loop, random.Random(f"disk of {seed}"), self.weather.moods)
        self.history: list[j.Event] = []
        self.processes: list[Process] = []
        self.workers: list[Worker] = []
        self.producers: list[Producer] = []
        self.links: list[Link] = []
        self.broker: Broker
        self.brokers: list[Broker] = []
        self._broker_awake_at = 0.0
        self._born = 0
        self._mended = False
        self._outside = copy_context()

    @property
    def now(self) -> float:
        return self.loop.now

    def note(self, event: j.Event) -> None:
        self.history.append(event)

    # The course of it ----------------------------------------------------------------------------------------

    async def live(self) -> Outcome:
        """Go through it."""
        with determined(self.chance):
            self._start_broker()
            self._populate()
            self._plan()
            await asyncio.sleep(self.weather.length)
            self._mend()
            await self._until_done()
            await asyncio.sleep(3.0)
            await self._until_written()
        residue = self._residue()
        self.note(j.Quiet(at=self.now))
        self._snapshot()
        ordered = self.weather.keys if self.weather.calm else ()
        problems = [f"{p.get('message')}: {p.get('exception')!r}" for p in self.loop.problems]
        problems += [f"the auditor found {it}" for broker in self.brokers for it in broker.differences]
        violations = j.judge(self.history, ordered=ordered, excuses=())
        return Outcome(self.seed, list(self.history), violations, residue, problems, self.weather, self.now)

    def _populate(self) -> None:
        wishes = self._wishes()
        for i in range(2):
            producer = Producer(
                f"producer-{i}",
                self._process(f"producer-{i}"),
                wishes[i],
                self.weather.batch,
                random.Random(f"producer {i} of {self.seed}"),
                self.clock,
                partial(self._connect, worker=False),
                self.note,
            )
            self.producers.append(producer)
            producer.start()
        for _ in range(self.weather.workers):
            self._start_worker()

    def _wishes(self) -> tuple[list[Wish], list[Wish]]:
        """What the two producers will want. Some of it both, by id or by idempotency key; some with a mistake."""
        weather, source = self.weather, self.source
        mine: tuple[list[Wish], list[Wish]] = ([], [])
        for _ in range(weather.runs):
            at = source.uniform(0, weather.length * 0.8)
            fields: dict[str, Any] = {"priority": source.choice([0, 0, 0, 5]), "retries": source.randint(0, 3)}
            fields["retry_delay"] = source.choice([0.0, 0.2, 2.0])
            if source.random() < weather.delayed:
                fields["scheduled_time"] = in_seconds(self.clock, at + source.uniform(-2, 15))
            elif source.random() < weather.expires:
                fields["expires"] = in_seconds(self.clock, at + source.uniform(0, 10))
            if source.random() < weather.idempotency:
                fields["idempotency_key"] = f"key-{source.randrange(8)}"
            run = new_run(self.chance.new_id(), source.choice(weather.keys), source, self.clock, **fields)
            who = source.randrange(2)
            mine[who].append(Wish(at, run))
            if source.random() < weather.resubmits:
                again = run
                if source.random() < 0.3:  # under an id that is taken, or will be
                    again = new_run(run.id, run.task_key, source, self.clock)
                mine[source.randrange(2)].append(Wish(at + source.uniform(0, 5), again))
        for wishes in mine:
            wishes.sort(key=lambda wish: wish.at)
        return mine

    def _plan(self) -> None:
        for at, fault in self.weather.faults:
            self.loop.call_at(at, getattr(self, "_" + fault.replace(" ", "_")))
        for _ in range(self.weather.cancels):
            self.loop.call_at(self.source.uniform(0, self.weather.length), self._cancel)
        for part in (0.4, 0.8):
            self.loop.call_at(self.weather.length * part, self._snapshot)

    # Processes -----------------------------------------------------------------------------------------------

    def _process(self, name: str) -> Process:
        process = Process(name, self.loop)
        self.processes.append(process)
        return process

    def _start_broker(self) -> None:
        process = self._process("broker")
        self.broker = Broker(process, self.loop, self.clock, self.disk, self.weather.settings, self.chance)
        self.brokers.append(self.broker)

    def _start_worker(self, keys: tuple[str, ...] = ()) -> None:
        self._born += 1
        name = f"worker-{self._born}"
        all_keys = self.weather.keys
        keys = keys or tuple(sorted(self.source.sample(all_keys, self.source.randint(1, len(all_keys)))))
        worker = Worker(
            name,
            self._process(name),
            keys,
            self.weather.limit,
            self.weather.manners,
            random.Random(f"{name} of {self.seed}"),
            partial(self._connect, worker=True),
            self.note,
            self._reachable_since,
        )
        self.workers.append(worker)
        worker.start()

    def _reachable_since(self) -> float:
        """Since when a worker could have come back."""
        return max(self.broker.ready_at, self._broker_awake_at, self.disk.moods.locked_until)

    def _connect(self, client: Worker | Producer, *, worker: bool) -> Link | None:
        broker = self.broker
        if not (broker.process.alive and broker.ready):
            return None
        source = self.source
        latency = self.weather.latency
        link = Link.between(
            self.loop, client.process, broker.process, source, lambda: latency * source.expovariate(1)
        )
        self.links = [link for link in self.links if link.is_open]
        self.links.append(link)
        self.loop.call_later(
            link.latency(), partial(broker.accept, link, worker=worker), context=broker.process.context
        )
        return link

    # Faults --------------------------------------------------------------------------------------------------

    def _fault(self, who: str, what: str, seconds: float | None = None) -> None:
        until = None if seconds is None else self.now + seconds + self.loop.turn
        self.note(j.Fault(at=self.now, who=who, what=what, until=until))

    def _some_worker(self) -> Worker | None:
        awake = [worker for worker in self.workers if worker.process.alive and not worker.process.paused]
        return self.source.choice(awake) if awake and not self._mended else None

    def _kill_worker(self) -> None:
        worker = self._some_worker()
        if worker is None:
            return
        self._fault(worker.name, "killed")
        if worker.link is not None and self.source.random() < 0.2:  # the power is gone: nobody closes its sockets
            worker.link.stall(self.now + 100)
        worker.process.kill()
        self.loop.call_later(self.source.uniform(0, 5), self._start_worker)

    def _quit_worker(self) -> None:
        worker = self._some_worker()
        if worker is None:
            return
        worker.process.spawn(worker.leave())
        self.loop.call_later(self.source.uniform(0, 5), self._start_worker)

    def _pause_worker(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            seconds = self.source.choice([0.5, 3.0, 8.0, 13.0, 20.0])
            self._fault(worker.name, "paused", seconds)
            worker.process.pause()
            self.loop.call_later(seconds, worker.process.go_on)

    def _cut(self) -> None:
        open_ = [link for link in self.links if link.is_open]
        if open_ and not self._mended:
            self.source.choice(open_).cut()

    def _cut_some(self) -> None:
        """Whoever has no connection when the broker, or its disk, is away cannot come back meanwhile."""
        if self.source.random() < 0.7:
            for link in self.links:
                if link.is_open and self.source.random() < 0.8:
                    link.cut()

    def _stall(self) -> None:
        open_ = [link for link in self.links if link.is_open]
        if open_ and not self._mended:
            link = self.source.choice(open_)
            seconds = self.source.choice([0.5, 3.0, 8.0, 14.0])
            self._fault(link.client.process.name, "stalled", seconds)
            link.stall(self.now + seconds)

    def _broker_is_up(self) -> bool:
        broker = self.broker
        return broker.process.alive and not (broker.process.paused or broker.stopping or self._mended)

    def _kill_broker(self) -> None:
        if self._broker_is_up():
            self._fault(j.BROKER, "killed")
            self.broker.process.kill()
            if self._company.random() < 0.4:  # they were on one machine
                self._kill_worker()
            self.loop.call_later(self.source.choice([0.1, 1.0, 8.0]), self._start_broker)

    def _stop_broker(self) -> None:
        broker = self.broker
        if self._broker_is_up() and broker.ready:
            self._fault(j.BROKER, "stopped")
            broker.stopping = True
            broker.process.on_killed.append(
                lambda: self.loop.call_later(
                    self.source.choice([0.1, 1.0, 3.0]), self._start_broker, context=self._outside
                )
            )
            broker.process.spawn(broker.stop())

    def _pause_broker(self) -> None:
        if self._broker_is_up():
            self._cut_some()
            self.loop.call_later(0.1, self._pause_it)

    def _pause_it(self) -> None:
        broker = self.broker
        if self._broker_is_up():
            seconds = self.source.choice([0.5, 3.0, 8.0, 40.0])
            self._fault(j.BROKER, "paused", seconds)
            self._broker_awake_at = self.now + seconds
            broker.process.pause()
            self.loop.call_later(seconds, broker.process.go_on)

    def _lock(self) -> None:
        if not self._mended:
            seconds = self.source.choice([0.3, 2.0, 10.0, 10.0])
            self._fault(j.DATABASE, "locked", seconds)
            self.disk.moods.locked_until = max(self.disk.moods.locked_until, self.now + seconds)
            self._cut_some()

    def _set_clock(self) -> None:
        if not self._mended:
            self.note(j.Fault(at=self.now, who=j.CLOCK, what="set"))
            self.clock.offset = self.source.uniform(-60, 60)

    def _cancel(self) -> None:
        known = [event.as_run for event in self.history if isinstance(event, j.Acknowledged)][-12:]
        if not known or not self.broker.ready or not self.broker.process.alive:
            return
        run_id = self.source.choice(known)
        self.note(j.CancelAsked(at=self.now, run=run_id))
        self.broker.call(partial(_ask_to_cancel, run_id), partial(self._cancelled, run_id))

    def _cancelled(self, run_id: str, outcome: Any) -> None:
        if outcome is not None and not isinstance(outcome, Exception):
            self.note(j.CancelAnswered(at=self.now, run=run_id, type=outcome.state.type.value))

    # The end -------------------------------------------------------------------------------------------------

    def _mend(self) -> None:
        """From now on nothing happens to anybody."""
        self._mended = True
        self.note(j.Fault(at=self.now, who=j.CLOCK, what="set"))
        self.clock.offset = max(self.clock.offset, 0.0)
        moods, manners = self.disk.moods, self.weather.manners
        moods.fails_before = moods.fails_after = moods.read_fails = 0.0
        moods.locked_until = min(moods.locked_until, self.now)
        manners.slow_start = manners.gives_back = manners.fails = 0.0
        self._start_worker(self.weather.keys)

    async def _until_done(self) -> None:
        limit = self.now + _MENDED
        while self.now < limit:
            await asyncio.sleep(1.0)
            if self.broker.process.paused or not self.broker.ready:
                continue
            open_ = self.disk.query(f"SELECT count(*) FROM task_run WHERE state_type NOT IN {_FINAL}")[0][0]
            if not open_ and all(producer.done for producer in self.producers) and self._all_answered():
                return

    async def _until_written(self) -> None:
        """What runs by itself writes at any time: look when nothing is on its way to the disk."""
        limit = self.now + 10.0
        while self.broker.core.store.waiting and self.now < limit:
            await asyncio.sleep(0.01)

    def _all_answered(self) -> bool:
        return not any(worker.held or worker.process.paused for worker in self.workers if worker.process.alive)

    def _snapshot(self) -> None:
        runs = self.disk.query(
            "SELECT id, task_key, state_type, state_name, state_id, attempt, session_id, idempotency_key,"
            " lower(hex(payload_hash)) FROM task_run"
        )
        states = self.disk.query(
            "SELECT id, task_run_id, type, name, timestamp, attempt, session_id FROM task_run_state"
        )
        self.note(
            j.Snapshot(
                at=self.now,
                runs=tuple(j.RunRow(*row) for row in runs),
                states=tuple(j.StateRow(*row) for row in states),
            )
        )

    def _residue(self) -> list[str]:
        """What the broker still remembers, though nothing is left to do."""
        core = self.broker.core
        found = (
            [f"{len(core.dispatcher._places)} runs reserved or in flight"] if len(core.dispatcher._places) else []
        )
        found += [f"{key} expects {count}" for key, count in core.dispatcher._arriving.items()]
        for session in core.registry:
            found += [f"{session!r} still holds {run_id}" for run_id in session.held]
            if session.port is not None:
                limit = core.dispatcher._sessions[session.id].limit
                free = core.dispatcher.free_slots(session.id)
                found += [f"{session!r} has {free} of {limit} slots free"] if free != limit else []
        found += [f"{key} has {len(q)} in its window" for key, q in core.dispatcher._queues.items() if len(q)]
        found += [f"{len(core.hub._progress)} runs in progress"] if core.hub._progress else []
        found += [f"{core.store.waiting} rows wait"] if core.store.waiting else []
        return found


async def _ask_to_cancel(run_id: str, core: Core) -> Any:
    return await core.transitions.set_state(TASK_RUN, run_id, Proposed(StateType.CANCELLING))
