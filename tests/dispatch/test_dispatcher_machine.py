"""The Dispatcher over a database: all that can happen, in any order, with commits and reads under way.

The writer takes operations in turn, each may fail, and their outcomes are delivered in the order of commits,
later. Refills are read at one moment and applied at another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runlane_broker.dispatch import (
    RETRY_LANE,
    Dispatcher,
    PlaceKind,
    QueuedRun,
    RefillTicket,
    Reservation,
)
from runlane_broker.dispatch.runs import rank_of

from .support import PRIORITIES, PROPERTY, make_run

KEYS = "abc"


@dataclass
class Row:
    """A run in the database."""

    run: QueuedRun
    state: str  # future, queued, leased, gone
    attempt: int = 0
    session_id: str | None = None


@dataclass
class Client:
    """A session as the model has it."""

    epoch: int
    keys: frozenset[str]
    limit: int
    connected: bool = True
    paused: bool = False
    reserved: set[str] = field(default_factory=set[str])
    #: The runs in flight, with the attempt of their lease.
    flying: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def free(self) -> int:
        return self.limit - len(self.reserved) - len(self.flying)


@dataclass
class Read:
    """A refill under way."""

    key: str
    ticket: RefillTicket
    limit: int
    rows: list[QueuedRun] | None = None


@dataclass
class Outcome:
    """What a commit means for the dispatcher, not yet delivered, and the runs that it moved."""

    deliver: Callable[[], None]
    moved: frozenset[str]


Operation = Callable[[bool], None]


class DispatcherMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(3, {"a": 1, "b": 2})
        self.rows: dict[str, Row] = {}
        self.epochs: dict[str, int] = {}  # the sessions in the database
        self.clients: dict[str, Client] = {}  # the sessions in the dispatcher
        self.writer: deque[Operation] = deque()
        self.outcomes: deque[Outcome] = deque()
        self.reads: list[Read] = []
        self.stale: set[str] = set()
        self.stale_since_begin: set[str] = set()
        self.minted = 0
        self.leases = 0

    # What the database can do

    def outcome(self, deliver: Callable[[], None], *moved: str) -> None:
        self.outcomes.append(Outcome(deliver, frozenset(moved)))

    def back_to_retry(self, row: Row) -> QueuedRun:
        row.run = make_run(
            row.run.id, row.run.task_key, priority=row.run.priority, lane=RETRY_LANE, due=row.run.due
        )
        row.state, row.session_id = "queued", None
        return row.run

    def refuse_insert(self, reservation: Reservation) -> None:
        key = reservation.run.task_key

        def deliver() -> None:
            self.abort(reservation, requeue=False)
            self.note_stale(key)

        self.outcome(deliver, reservation.run.id)

    def lease(self, reservation: Reservation, ok: bool, row: Row | None) -> None:
        run = reservation.run
        current = self.epochs.get(reservation.session_id) == reservation.epoch
        if row is None and (not ok or not current):
            self.refuse_insert(reservation)
        elif not ok or not current:
            self.outcome(lambda: self.abort(reservation, requeue=True), run.id)
        elif row is not None and row.state != "queued":
            self.outcome(lambda: self.abort(reservation, requeue=False), run.id)
        else:
            if row is None:
                row = self.rows[run.id] = Row(run, "queued")
            row.state, row.session_id = "leased", reservation.session_id
            row.attempt += 1
            attempt = row.attempt
            self.leases += 1
            self.outcome(lambda: self.confirm(reservation, attempt), run.id)

    def insert(self, run: QueuedRun, state: str, ok: bool) -> None:
        if not ok:
            self.outcome(lambda: self.dispatcher.arrived(run.task_key))
            return
        self.rows[run.id] = Row(run, state)

        def deliver() -> None:
            if state == "queued":
                self.dispatcher.enqueue(run)
            self.dispatcher.arrived(run.task_key)

        self.outcome(deliver, run.id)

    def end_lease(self, run_id: str, attempt: int, then: str, session_id: str | None = None) -> None:
        """End a lease if it is still that one: `then` is "retry" or "finish"."""
        row = self.rows[run_id]
        held = row.state == "leased" and row.attempt == attempt
        run = None
        if held and then == "retry":
            run = self.back_to_retry(row)
        elif held:
            row.state = "gone"

        def deliver() -> None:
            if session_id is not None:
                self.release(session_id, run_id)
            if run is not None:
                self.dispatcher.enqueue(run)

        self.outcome(deliver, run_id)

    def resume_in_database(self, session_id: str, keys: frozenset[str], limit: int, listed: set[str]) -> None:
        if session_id not in self.epochs:
            return
        epoch = self.epochs[session_id] = self.epochs[session_id] + 1
        kept: list[tuple[str, str]] = []
        attempts: dict[str, int] = {}
        released: list[QueuedRun] = []
        for row in self.rows.values():
            if row.session_id == session_id and row.state == "leased":
                if row.run.id in listed:
                    kept.append((row.run.id, row.run.task_key))
                    attempts[row.run.id] = row.attempt
                else:
                    released.append(self.back_to_retry(row))

        def deliver() -> None:
            self.dispatcher.resume(session_id, epoch, keys, limit, kept)
            self.clients[session_id] = Client(epoch, keys, limit, flying=attempts)
            for run in released:
                self.dispatcher.enqueue(run)

        self.outcome(deliver, *attempts, *(run.id for run in released))

    def end_in_database(self, session_id: str) -> None:
        self.epochs.pop(session_id, None)
        released = [
            self.back_to_retry(row)
            for row in self.rows.values()
            if row.session_id == session_id and row.state == "leased"
        ]

        def deliver() -> None:
            client = self.clients.pop(session_id, None)
            assert set(self.dispatcher.end_session(session_id)) == set(client.flying if client else ())
            for run in released:
                self.dispatcher.enqueue(run)

        self.outcome(deliver, *(run.id for run in released))

    def cancel_in_database(self, run_id: str) -> None:
        row = self.rows[run_id]
        if row.state in ("queued", "future"):
            row.state = "gone"
            self.outcome(lambda: self.dispatcher.remove(row.run.task_key, run_id), run_id)

    def note_stale(self, key: str) -> None:
        if self.dispatcher.has_demand(key):
            self.stale.add(key)
            self.stale_since_begin.add(key)

    # What its outcomes do to the dispatcher and the model

    def current(self, reservation: Reservation) -> Client | None:
        client = self.clients.get(reservation.session_id)
        return client if client is not None and client.epoch == reservation.epoch else None

    def abort(self, reservation: Reservation, *, requeue: bool) -> None:
        client = self.current(reservation)
        if client is not None:
            client.reserved.discard(reservation.run.id)
        self.dispatcher.abort(reservation, requeue=requeue)

    def confirm(self, reservation: Reservation, attempt: int) -> None:
        run_id = reservation.run.id
        client = self.current(reservation)
        confirmed = self.dispatcher.confirm(reservation)
        assert confirmed == (client is not None and client.connected)
        if client is not None:
            client.reserved.discard(run_id)
            if confirmed:
                client.flying[run_id] = attempt
        if not confirmed:
            self.writer.append(lambda ok: self.end_lease(run_id, attempt, "retry"))

    def release(self, session_id: str, run_id: str) -> None:
        client = self.clients.get(session_id)
        flying = client.flying if client is not None else {}
        assert self.dispatcher.release(session_id, run_id) == (run_id in flying)
        flying.pop(run_id, None)

    # Rules: clients

    @rule(key=st.sampled_from(KEYS), priority=PRIORITIES, future=st.booleans())
    def submit(self, key: str, priority: int, future: bool) -> None:
        self.minted += 1
        run = make_run(f"{self.minted:04}", key, priority=priority, due=self.minted // 3)
        reservation = None if future else self.dispatcher.hand_off(run)
        if reservation is None:
            self.dispatcher.expect(key)
            self.writer.append(lambda ok: self.insert(run, "future" if future else "queued", ok))
            return
        self.check_hand_off(reservation)
        self.clients[reservation.session_id].reserved.add(run.id)
        self.writer.append(lambda ok: self.lease(reservation, ok, None))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def resubmit(self, data: st.DataObject) -> None:
        """A producer that saw no answer sends a run again: the database has it, and nothing is inserted."""
        run = self.rows[data.draw(st.sampled_from(sorted(self.rows)))].run
        again = make_run(run.id, run.task_key, priority=run.priority, due=run.due)
        reservation = self.dispatcher.hand_off(again)
        if reservation is None:
            self.dispatcher.expect(run.task_key)
            self.writer.append(lambda ok: self.outcome(lambda: self.dispatcher.arrived(run.task_key)))
            return
        self.clients[reservation.session_id].reserved.add(run.id)
        self.writer.append(lambda ok: self.refuse_insert(reservation))

    @rule(keys=st.frozensets(st.sampled_from(KEYS), min_size=1), limit=st.integers(0, 3))
    def subscribe(self, keys: frozenset[str], limit: int) -> None:
        session_id = f"s{len(self.epochs) + self.minted}-{len(self.outcomes)}"
        if session_id in self.epochs or session_id in self.clients or len(self.clients) > 4:
            return
        self.epochs[session_id] = 1
        self.dispatcher.subscribe(session_id, 1, keys, limit)
        self.clients[session_id] = Client(1, keys, limit)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), keys=st.frozensets(st.sampled_from(KEYS), min_size=1), limit=st.integers(0, 3))
    def resume(self, data: st.DataObject, keys: frozenset[str], limit: int) -> None:
        session_id = data.draw(st.sampled_from(sorted(self.clients)))
        flying = sorted(self.clients[session_id].flying)
        listed = data.draw(st.sets(st.sampled_from(flying))) if flying else set[str]()
        self.writer.append(lambda ok: self.resume_in_database(session_id, keys, limit, listed))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), what=st.sampled_from(["disconnect", "pause", "unpause", "end"]))
    def change(self, data: st.DataObject, what: str) -> None:
        session_id = data.draw(st.sampled_from(sorted(self.clients)))
        client = self.clients[session_id]
        if what == "disconnect":
            self.dispatcher.disconnect(session_id, client.epoch - 1)
            self.dispatcher.disconnect(session_id, client.epoch)
            client.connected = False
        elif what == "end":
            self.writer.append(lambda ok: self.end_in_database(session_id))
        else:
            getattr(self.dispatcher, what)(session_id)
            client.paused = what == "pause"

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), limit=st.integers(0, 4))
    def set_limit(self, data: st.DataObject, limit: int) -> None:
        session_id = data.draw(st.sampled_from(sorted(self.clients)))
        self.dispatcher.set_limit(session_id, limit)
        self.clients[session_id].limit = limit

    @precondition(lambda self: any(client.flying for client in self.clients.values()))
    @rule(data=st.data(), then=st.sampled_from(["finish", "retry"]), early=st.booleans())
    def report(self, data: st.DataObject, then: str, early: bool) -> None:
        flying = sorted((run_id, sid) for sid, client in self.clients.items() for run_id in client.flying)
        run_id, session_id = data.draw(st.sampled_from(flying))
        attempt = self.clients[session_id].flying[run_id]
        if early:
            self.release(session_id, run_id)
        self.writer.append(lambda ok: self.end_lease(run_id, attempt, then, session_id))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.rows)))
        self.writer.append(lambda ok: self.cancel_in_database(run_id))

    @rule(key=st.sampled_from(KEYS))
    def come_due(self, key: str) -> None:
        due = [row for row in self.rows.values() if row.state == "future" and row.run.task_key == key]
        for row in due:
            row.state = "queued"

        def deliver() -> None:
            self.dispatcher.mark_due(key)
            self.note_stale(key)

        self.outcome(deliver, *(row.run.id for row in due))

    # Rules: the broker's own work

    @precondition(lambda self: self.writer)
    @rule(ok=st.booleans())
    def commit(self, ok: bool) -> None:
        self.writer.popleft()(ok)

    @precondition(lambda self: self.writer)
    @rule()
    def commit_all(self) -> None:
        while self.writer:
            self.writer.popleft()(True)

    @precondition(lambda self: self.outcomes)
    @rule()
    def deliver(self) -> None:
        self.outcomes.popleft().deliver()

    @precondition(lambda self: self.outcomes)
    @rule()
    def deliver_all(self) -> None:
        while self.outcomes:
            self.outcomes.popleft().deliver()

    @rule()
    def assign(self) -> None:
        windows = {key: list(self.dispatcher.queue(key) or ()) for key in KEYS}
        for reservation in self.dispatcher.assign():
            run, client = reservation.run, self.clients[reservation.session_id]
            assert client.free == max(other.free for other in self.candidates(windows))
            assert client in self.candidates(windows)
            assert run.task_key in client.keys
            assert reservation.epoch == client.epoch
            assert run == windows[run.task_key].pop(0), "not the best of its key"
            client.reserved.add(run.id)
            self.writer.append(lambda ok, r=reservation: self.lease(r, ok, self.rows[r.run.id]))
        assert not self.candidates(windows)

    def candidates(self, windows: dict[str, list[QueuedRun]]) -> list[Client]:
        """Who may be given a run now."""
        waiting = (client for client in self.clients.values() if client.connected and not client.paused)
        return [client for client in waiting if client.free > 0 and any(windows[key] for key in client.keys)]

    def check_hand_off(self, reservation: Reservation) -> None:
        run, client = reservation.run, self.clients[reservation.session_id]
        assert client.connected
        assert not client.paused
        assert client.free > 0
        assert run.task_key in client.keys
        older = [
            row
            for row in self.rows.values()
            if row.state == "queued" and row.run.task_key == run.task_key and self.is_settled(row.run.id)
        ]
        assert older == []

    @rule()
    def begin_refills(self) -> None:
        for key, ticket, limit in self.dispatcher.refills_wanted():
            assert any(client.connected and key in client.keys for client in self.clients.values())
            self.reads.append(Read(key, ticket, limit))
            self.stale_since_begin.discard(key)

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        read = self.reads[data.draw(st.integers(0, len(self.reads) - 1))]
        due = (row.run for row in self.rows.values() if row.state == "queued" and row.run.task_key == read.key)
        read.rows = sorted(due, key=rank_of)[: read.limit]

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def end_read(self, data: st.DataObject) -> None:
        read = self.reads.pop(data.draw(st.integers(0, len(self.reads) - 1)))
        if read.rows is None:
            self.dispatcher.abandon_refill(read.key, read.ticket)
            return
        applied = self.dispatcher.apply_refill(read.key, read.ticket, read.rows, read.limit)
        if applied and read.key not in self.stale_since_begin:
            self.stale.discard(read.key)

    # What always holds

    def is_settled(self, run_id: str) -> bool:
        """Whether the dispatcher has heard all that the database knows of a run, and does not hold it."""
        place = self.dispatcher.place_of(run_id)
        held = place is not None and place.kind is not PlaceKind.QUEUED
        return not held and all(run_id not in outcome.moved for outcome in self.outcomes)

    @invariant()
    def the_windows_are_the_beginnings_of_the_orders(self) -> None:
        self.stale &= set(self.dispatcher.demanded_keys())
        for key in self.dispatcher.demanded_keys():
            queue = self.dispatcher.queue(key)
            assert queue is not None
            window = list(queue)
            assert len(window) <= queue.size
            assert window == sorted(window, key=rank_of)
            assert queue.complete <= (key not in self.stale)
            if key in self.stale:
                continue
            for row in self.rows.values():
                if row.state == "queued" and row.run.task_key == key and self.is_settled(row.run.id):
                    within = queue.complete or (window and row.run.rank <= window[-1].rank)
                    assert (row.run in window) == bool(within), (row, queue)

    @invariant()
    def nothing_settled_is_queued_that_is_not_dispatchable(self) -> None:
        for key in self.dispatcher.demanded_keys():
            for run in self.dispatcher.queue(key) or ():
                if all(run.id not in outcome.moved for outcome in self.outcomes):
                    assert self.rows[run.id].state == "queued", run

    @invariant()
    def a_run_is_in_one_place(self) -> None:
        held = [run_id for sid in self.dispatcher.sessions for run_id in self.dispatcher.in_flight(sid)]
        queued = [run.id for key in self.dispatcher.demanded_keys() for run in self.dispatcher.queue(key) or ()]
        assert len(set(held)) == len(held)
        assert len(set(queued)) == len(queued)
        assert not set(held) & set(queued)
        for run_id in queued:
            place = self.dispatcher.place_of(run_id)
            assert place is not None
            assert place.kind is PlaceKind.QUEUED

    @invariant()
    def the_sessions_hold_what_the_model_says(self) -> None:
        assert set(self.dispatcher.sessions) == set(self.clients)
        for session_id, client in self.clients.items():
            assert set(self.dispatcher.in_flight(session_id)) == set(client.flying)
            assert self.dispatcher.free_slots(session_id) == max(0, client.free)
        demanded = {key for client in self.clients.values() for key in client.keys}
        assert set(self.dispatcher.demanded_keys()) == demanded

    def teardown(self) -> None:
        """In the end every dispatchable run is leased, once."""
        self.quiesce()
        for read in self.reads:
            self.dispatcher.abandon_refill(read.key, read.ticket)
        self.reads.clear()
        self.epochs["drain"] = 1
        self.dispatcher.subscribe("drain", 1, KEYS, 10_000)
        self.clients["drain"] = Client(1, frozenset(KEYS), 10_000)
        expected = sum(row.state == "queued" for row in self.rows.values())
        self.leases = 0
        for _ in range(4 * expected + 8):
            self.refill_all()
            self.the_windows_are_the_beginnings_of_the_orders()
            self.assign()
            self.quiesce()
        assert self.leases == expected
        assert all(row.state != "queued" for row in self.rows.values())
        for key in KEYS:
            queue = self.dispatcher.queue(key)
            assert queue is not None
            assert queue.complete
        assert self.dispatcher.assign() == []
        assert not self.dispatcher._places._reserved  # pyright: ignore[reportPrivateUsage]
        assert not self.dispatcher._news  # pyright: ignore[reportPrivateUsage]
        assert not self.dispatcher._arriving  # pyright: ignore[reportPrivateUsage]

    def quiesce(self) -> None:
        while self.writer or self.outcomes:
            if self.writer:
                self.commit_all()
            if self.outcomes:
                self.deliver_all()

    def refill_all(self) -> None:
        for key, ticket, limit in self.dispatcher.refills_wanted():
            due = (row.run for row in self.rows.values() if row.state == "queued" and row.run.task_key == key)
            self.dispatcher.apply_refill(key, ticket, sorted(due, key=rank_of)[:limit], limit)
            self.stale.discard(key)


TestDispatcherMachine = DispatcherMachine.TestCase
TestDispatcherMachine.settings = settings(PROPERTY, max_examples=400, stateful_step_count=60)
