"""A whole broker on a file: all that producers, workers, operators and time can do to it, against a simple model.

After each step everything comes to rest, and then the model, which knows only what was said, must be what stands
in the database, what the dispatcher believes, and what everybody was told.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane.protocol.states import FINAL, StateType
from runlane_broker.core.submit import payload_hash
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.storage.records import RETRY_LANE, SCHEDULED_LANE, Creation, NewRunRecord
from runlane_broker.storage.tables import TASK_RUN

from ..storage.database import audit
from ..support import SECOND, FakeClock, make_run, new_database, new_id
from .harness import Broker, Producer, Worker, broker, quick

S = StateType
KEYS: Final = "abc"
GRACE: Final = 5.0
#: Nobody is silent or deaf here: other tests know about that.
SETTINGS = quick(resume=GRACE, start=3600.0, silent=3600.0, idle_silent=3600.0)


@dataclass
class Run:
    """A run as it must be. `due` is in microseconds; `holder` is the session of its lease."""

    new: NewRunRecord
    type: StateType = S.SCHEDULED
    lane: int = SCHEDULED_LANE
    due: int = 0
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    holder: str | None = None
    #: It was given back in this step: the slot was free, and may have been filled, before that was written.
    fresh: bool = False

    @property
    def rank(self) -> tuple[Any, ...]:
        return (-self.new.priority, self.lane, self.due, self.new.id)

    def requeue(self, due: int | None = None) -> None:
        self.type, self.lane, self.holder = S.SCHEDULED, RETRY_LANE, None
        self.due = self.due if due is None else due
        self.fresh = True

    def end(self, type_: StateType) -> None:
        self.type, self.holder = type_, None


@dataclass
class Client:
    """A worker and what it holds, run and attempt; `until` is the end of its grace while it is away."""

    worker: Worker
    session: str
    held: dict[str, int] = field(default_factory=dict[str, int])
    heard: int = 0
    until: float | None = None
    limit: int = 0


class BrokerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folders = ExitStack()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.runs: dict[str, Run] = {}
        self.gone: set[str] = set()
        self.clients: dict[str, Client] = {}
        #: Leases whose end has been recorded: worker, run and attempt.
        self.recorded: list[tuple[Client, str, int]] = []
        #: Leases that are over otherwise.
        self.stale: list[tuple[Client, str, int]] = []
        self.histories: dict[str, list[Any]] = {}
        self.told: Counter[tuple[str, StateType]] = Counter()

    # A broker that comes and goes

    @initialize()
    def begin(self) -> None:
        self.path = new_database(Path(self.folders.enter_context(TemporaryDirectory())))
        self.open()

    def open(self) -> None:
        self.stack = AsyncExitStack()
        opening = broker(self.path, clock=self.clock, settings=SETTINGS, audited=False)
        self.broker: Broker = self.runner.run(self.stack.enter_async_context(opening))
        self.producer = Producer(self.broker.core)
        self.runner.run(self.producer.watch(*self.unfinished()))

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        self.take_what_was_told()
        if killed:  # what a broker leaves behind that is killed: its files as they are
            copy = Path(self.folders.enter_context(TemporaryDirectory()))
            for file in self.path.parent.glob(self.path.name + "*"):
                shutil.copyfile(file, copy / file.name)
            self.path = copy / self.path.name
        self.runner.run(self.stack.aclose())
        self.open()
        for client in self.clients.values():
            client.worker.gone = True
            client.until = self.clock.monotonic() + GRACE

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.runner.run(self.stack.aclose())
        self.runner.close()
        self.folders.close()

    # Producers

    @rule(
        runs=st.lists(
            st.tuples(st.sampled_from(KEYS), st.integers(0, 2), st.sampled_from([0, 0, 0, 3]), st.integers(0, 2)),
            min_size=1,
            max_size=4,
        )
    )
    def submit(self, runs: list[tuple[str, int, float, int]]) -> None:
        now = self.clock.now()
        new = [
            make_run(key, priority=priority, due=now + round(delay * SECOND), retries=retries)
            for key, priority, delay, retries in runs
        ]
        outcomes = self.runner.run(self.producer.submitted(*new))
        assert all(outcome.how in (Creation.CREATED, Creation.LEASED) for outcome in outcomes)
        for run in new:
            self.runs[run.id] = Run(run, due=run.due)
        self.runner.run(self.producer.watch(*(run.id for run in new)))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), same=st.booleans())
    def resubmit(self, data: st.DataObject, same: bool) -> None:
        new = self.runs[data.draw(st.sampled_from(sorted(self.runs)))].new
        if not same:
            new = make_run(
                new.task_key, id=new.id, parameters=b'{"x":2}', payload_hash=payload_hash(new.task_key, b'{"x":2}')
            )
        (outcome,) = self.runner.run(self.producer.submitted(new))
        assert outcome.how is (Creation.EXISTED if same else Creation.ID_CONFLICT)

    @rule(key=st.sampled_from(KEYS), name=st.sampled_from("xy"))
    def submit_with_an_idempotency_key(self, key: str, name: str) -> None:
        new = make_run(key, idempotency_key=name)
        (outcome,) = self.runner.run(self.producer.submitted(new))
        alike = (
            run_id
            for run_id, run in self.runs.items()
            if (run.new.task_key, run.new.idempotency_key) == (key, name)
        )
        if (earlier := next(alike, None)) is not None:
            assert (outcome.how, outcome.id) == (Creation.EXISTED, earlier)
            return
        self.runs[new.id] = Run(new, due=new.due)
        self.runner.run(self.producer.watch(new.id))

    # Workers

    @rule(keys=st.sets(st.sampled_from(KEYS), min_size=1), limit=st.integers(0, 3))
    def subscribe(self, keys: set[str], limit: int) -> None:
        worker = self.runner.run(Worker(self.broker.core, *sorted(keys), limit=limit).connected())
        self.clients[worker.own.id] = Client(worker, worker.own.id, limit=limit)

    @precondition(lambda self: self.away())
    @rule(data=st.data(), limit=st.integers(0, 3))
    def resume(self, data: st.DataObject, limit: int) -> None:
        """It lists what it holds, perhaps without something that never arrived, or with what was never its own."""
        client = data.draw(st.sampled_from(self.away()))
        unheard = data.draw(st.sets(st.sampled_from(sorted(client.held)))) if client.held else set()
        foreign = [(new_id(), 1)] if data.draw(st.booleans()) else []
        listed = [(run_id, attempt) for run_id, attempt in client.held.items() if run_id not in unheard]
        earlier = client.worker
        worker = Worker(self.broker.core, *earlier.keys, limit=limit)
        self.runner.run(worker.connected(earlier, [*listed, *foreign]))
        assert worker.answer is not None
        assert set(worker.answer.resumed) == {run_id for run_id, _ in listed if self.holds(client, run_id)}
        assert {run.id for run in worker.answer.lost} == {
            run_id for run_id, _ in [*listed, *foreign] if not self.holds(client, run_id)
        }
        client.worker, client.heard, client.until, client.limit = worker, 0, None, limit
        for run_id in list(client.held):
            if not self.holds(client, run_id):
                del client.held[run_id]
            elif run_id in unheard:
                del client.held[run_id]
                self.give_back(run_id)

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), limit=st.integers(0, 3))
    def set_limit(self, data: st.DataObject, limit: int) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        client.limit = limit
        self.call(self.broker.core.sessions.set_limit, client.worker.own, limit)

    @precondition(lambda self: self.leases())
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        client, run_id, attempt = data.draw(st.sampled_from(self.leases()))
        self.call(client.worker.started, run_id, attempt)
        run = self.runs[run_id]
        run.type = S.RUNNING if run.type is S.PENDING else run.type

    @precondition(lambda self: self.leases())
    @rule(data=st.data(), type_=st.sampled_from(["COMPLETED", "FAILED", "CANCELLED"]))
    def finish(self, data: st.DataObject, type_: str) -> None:
        client, run_id, attempt = data.draw(st.sampled_from(self.leases()))
        self.call(client.worker.finished, run_id, attempt, type_)
        del client.held[run_id]
        self.recorded.append((client, run_id, attempt))
        run = self.runs[run_id]
        if type_ == "FAILED" and run.type is S.CANCELLING:
            run.end(S.CANCELLED)
        elif type_ == "FAILED" and run.failures < run.new.retries:
            run.requeue(self.clock.now())
        else:
            run.end(S(type_))
        run.failures += type_ == "FAILED"

    @precondition(lambda self: self.leases())
    @rule(data=st.data(), delay=st.sampled_from([None, 0.0, 2.0]))
    def release(self, data: st.DataObject, delay: float | None) -> None:
        client, run_id, attempt = data.draw(st.sampled_from(self.leases()))
        self.call(client.worker.released, run_id, attempt, delay)
        del client.held[run_id]
        self.stale.append((client, run_id, attempt))
        self.give_back(run_id, None if delay is None else self.clock.now() + round(delay * SECOND))

    @precondition(lambda self: self.once(self.recorded))
    @rule(data=st.data(), type_=st.sampled_from(["COMPLETED", "FAILED"]))
    def report_again(self, data: st.DataObject, type_: str) -> None:
        """The same verdict, whatever it says now."""
        client, run_id, attempt = data.draw(st.sampled_from(self.once(self.recorded)))
        self.call(client.worker.finished, run_id, attempt, type_)
        self.rest()
        *_, verdict = client.worker.of("recorded", "lease_lost")
        assert verdict == ("recorded", run_id, attempt, run_id in self.gone)

    @precondition(lambda self: self.once(self.stale))
    @rule(data=st.data(), what=st.sampled_from(["started", "finished", "released"]))
    def report_too_late(self, data: st.DataObject, what: str) -> None:
        """Who has lost the lease changes nothing."""
        client, run_id, attempt = data.draw(st.sampled_from(self.once(self.stale)))
        self.call(getattr(client.worker, what), run_id, attempt)
        self.rest()
        if what == "finished":
            *_, verdict = client.worker.of("recorded", "lease_lost")
            lost = ("lease_lost", run_id, attempt)
            assert verdict == (("recorded", run_id, attempt, True) if run_id in self.gone else lost)

    @precondition(lambda self: self.connected())
    @rule(data=st.data(), quits=st.booleans())
    def leave(self, data: st.DataObject, quits: bool) -> None:
        client = data.draw(st.sampled_from(self.connected()))
        if not quits:
            self.call(client.worker.disconnect)
            client.until = self.clock.monotonic() + GRACE
            return
        self.call(client.worker.quit)
        self.call(client.worker.disconnect)
        self.forget(client, lost=False)

    # Operators, and time

    @precondition(lambda self: self.unfinished())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(self.unfinished()))
        run = self.runs[run_id]
        wanted = S.CANCELLED if run.holder is None else S.CANCELLING
        changing = self.broker.core.transitions.set_state(TASK_RUN, run_id, Proposed(wanted))
        outcome = self.runner.run(changing)
        assert outcome is not None
        assert outcome.wrote
        if wanted is S.CANCELLED:
            run.end(S.CANCELLED)
        else:
            run.type = S.CANCELLING

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.runs)))
        assert self.runner.run(self.broker.core.transitions.delete(TASK_RUN, run_id))
        run = self.runs.pop(run_id)
        self.gone.add(run_id)
        self.histories.pop(run_id, None)
        for client in self.clients.values():
            if client.session == run.holder and client.until is None:
                attempt = client.held.pop(run_id)
                self.stale.append((client, run_id, attempt))

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.call(self.broker.later, seconds)
        self.call(self.broker.core.dispatching.time_changed)
        for client in self.away():
            if client.until is not None and client.until <= self.clock.monotonic():
                self.forget(client, lost=True)

    # What the model does

    def unfinished(self) -> list[str]:
        return sorted(run_id for run_id, run in self.runs.items() if run.type not in FINAL)

    def connected(self) -> list[Client]:
        return [client for client in self.clients.values() if client.until is None]

    def away(self) -> list[Client]:
        return [client for client in self.clients.values() if client.until is not None]

    def holds(self, client: Client, run_id: str) -> bool:
        run = self.runs.get(run_id)
        return run is not None and (run.holder, run.attempt) == (client.session, client.held.get(run_id))

    def leases(self) -> list[tuple[Client, str, int]]:
        return [(c, run_id, attempt) for c in self.connected() for run_id, attempt in c.held.items()]

    def once(self, leases: list[tuple[Client, str, int]]) -> list[tuple[Client, str, int]]:
        """Those whose worker is still there, and says so."""
        connected = self.connected()
        return [lease for lease in leases if any(lease[0] is client for client in connected)]

    def give_back(self, run_id: str, due: int | None = None) -> None:
        run = self.runs[run_id]
        if run.type is S.CANCELLING:
            run.end(S.CANCELLED)
        else:
            run.requeue(due)

    def forget(self, client: Client, *, lost: bool) -> None:
        """A session is over: what it held waits again, or has cost too many."""
        del self.clients[client.session]
        for run_id in client.held:
            if not self.holds(client, run_id):
                continue
            run = self.runs[run_id]
            run.losses += lost
            if lost and run.losses >= SETTINGS.max_losses and run.type is not S.CANCELLING:
                run.end(S.CRASHED)
            else:
                self.give_back(run_id)

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call something on the event loop."""

        async def called() -> None:
            function(*args)

        self.runner.run(called())

    def rest(self) -> None:
        self.runner.run(self.broker.quiet())

    # What holds

    @invariant()
    def everything_comes_to_rest_and_is_as_it_must_be(self) -> None:
        self.rest()
        self.hear_what_was_pushed()
        self.take_what_was_told()
        with closing(sqlite3.connect(self.path)) as connection:
            self.connection = connection
            audit(lambda text: connection.execute(text).fetchall())
            self.the_database_is_as_it_must_be()
            self.histories_only_grow()
        self.the_dispatcher_believes_the_same()
        self.nobody_waits_in_vain()

    def hear_what_was_pushed(self) -> None:
        """Each lease goes to one worker, once; a run that cannot start does not; the attempt is the next."""
        now = self.clock.now()
        pushed: list[Run] = []
        for client in self.clients.values():
            events = client.worker.of("run")
            for _, run_id, attempt, parameters in events[client.heard :]:
                run = self.runs[run_id]
                assert run.type is S.SCHEDULED, f"{run.type} is never started"
                assert run.due <= now
                assert attempt == run.attempt + 1
                assert parameters == run.new.parameters
                assert run.new.task_key in client.worker.keys
                run.type, run.attempt, run.holder = S.PENDING, attempt, client.session
                client.held[run_id] = attempt
                pushed.append(run)
            assert len(client.held) <= client.limit or len(events) == client.heard
            client.heard = len(events)
        for run in self.runs.values():
            if run.type is S.SCHEDULED and run.due <= now and not run.fresh:
                alike = [one for one in pushed if one.new.task_key == run.new.task_key]
                assert all(one.rank < run.rank for one in alike), "what ranks first goes first"
            run.fresh = False

    def take_what_was_told(self) -> None:
        """Each end is told to its watcher, once."""
        for _, run_id, type_, _ in self.producer.of("finished"):
            self.told[run_id, type_] += 1
        self.producer.events.clear()
        ended = {(run_id, run.type) for run_id, run in self.runs.items() if run.type in FINAL}
        assert {one for one in self.told if one[0] in self.runs} == ended
        assert set(self.told.values()) <= {1}

    def the_database_is_as_it_must_be(self) -> None:
        columns = "id, state_type, attempt, failures, losses, session_id, lane, due"
        rows = self.connection.execute(f"SELECT {columns} FROM task_run").fetchall()
        actual = {row[0]: (S(row[1]), *row[2:6], row[6:] if row[1] == S.SCHEDULED else ()) for row in rows}
        assert actual == {
            run_id: (
                run.type, run.attempt, run.failures, run.losses, run.holder,
                (run.lane, run.due) if run.type is S.SCHEDULED else (),
            )
            for run_id, run in self.runs.items()
        }  # fmt: skip

    def histories_only_grow(self) -> None:
        histories: dict[str, list[Any]] = {}
        for row in self.connection.execute("SELECT * FROM task_run_state ORDER BY task_run_id, timestamp"):
            histories.setdefault(row[1], []).append(row)
        for run_id, earlier in self.histories.items():
            assert histories[run_id][: len(earlier)] == earlier
        self.histories = histories

    def the_dispatcher_believes_the_same(self) -> None:
        for client in self.connected():
            flying = self.broker.core.dispatcher.in_flight(client.session)
            assert set(flying) == set(client.held) == set(client.worker.own.held)

    def nobody_waits_in_vain(self) -> None:
        """Where a slot is free, nothing is due that could take it."""
        now = self.clock.now()
        for client in self.connected():
            if len(client.held) < client.limit:
                waiting = [
                    run_id
                    for run_id, run in self.runs.items()
                    if run.type is S.SCHEDULED and run.due <= now and run.new.task_key in client.worker.keys
                ]
                assert waiting == []


TestBrokerMachine = BrokerMachine.TestCase
TestBrokerMachine.settings = settings(
    max_examples=6,
    stateful_step_count=30,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
