"""Pushed work queues over a database: priorities, pauses, limits, and sessions that come and go, in any order.

The model is the database: it knows how queues and pool stand and who has a slot, and has the last word on a lease.
It tells the dispatcher what the core would tell it, in the order of the commits. Reservations may wait for their
commit; windows are filled again at once (`test_dispatcher_machine` is about what lies between).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane_broker.dispatch import Dispatcher, PoolSettings, QueuedRun, QueueSettings, Reservation
from runlane_broker.dispatch.runs import rank_of

from .support import PROPERTY, make_run

POOL = "p"
QUEUES = ("queue p 1", "queue p 2", "queue p 3")
TASK = "k"
KEYS = (*QUEUES, TASK)
LIMITS = st.sampled_from((None, None, 0, 1, 2, 3, 5))
#: Mostly not: what is paused does nothing.
PAUSED = st.sampled_from((False, False, False, True))
SERVED = st.sampled_from((frozenset(QUEUES), frozenset(KEYS))) | st.frozensets(st.sampled_from(KEYS), min_size=1)
POLLER = "poller"


@dataclass
class Line:
    """A work queue in the database."""

    place: int
    limit: int | None = None
    paused: bool = False


@dataclass
class Row:
    """A run in the database: it waits, or somebody has its slot, or it is over."""

    run: QueuedRun
    holder: str | None = None
    #: A queue with a filter finds it, too.
    found: bool = False
    over: bool = False

    @property
    def waits(self) -> bool:
        return self.holder is None and not self.over


@dataclass
class Client:
    """A session."""

    epoch: int
    keys: frozenset[str]
    limit: int
    connected: bool = True
    flying: set[str] = field(default_factory=set[str])


class PoolsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(2)
        self.lines = {key: Line(place) for place, key in enumerate(QUEUES)}
        self.limit: int | None = None
        self.paused = False
        self.filter_limit: int | None = None
        self.rows: dict[str, Row] = {}
        self.clients: dict[str, Client] = {}
        self.pending: deque[Reservation] = deque()
        self.made = 0

    # The model

    @property
    def settings(self) -> PoolSettings:
        lines = (QueueSettings(key, line.place, line.paused, line.limit) for key, line in self.lines.items())
        return PoolSettings(POOL, tuple(lines), self.paused, self.limit)

    def taken(self, *keys: str) -> int:
        """How many have a slot of these queues."""
        return sum(row.holder is not None and row.run.task_key in keys for row in self.rows.values())

    def reserved(self, *keys: str) -> int:
        return sum(one.run.task_key in keys for one in self.pending)

    def queue_closed(self, key: str, besides: int = 0) -> bool:
        line = self.lines[key]
        return line.paused or (line.limit is not None and self.taken(key) + besides >= line.limit)

    def pool_closed(self, besides: int = 0) -> bool:
        return self.paused or (self.limit is not None and self.taken(*self.lines) + besides >= self.limit)

    @property
    def filter_full(self) -> bool:
        taken = sum(row.holder is not None and row.found for row in self.rows.values())
        return self.filter_limit is not None and taken >= self.filter_limit

    def held_back(self, row: Row) -> bool:
        return row.found and self.filter_full

    def waiting(self, key: str) -> list[QueuedRun]:
        """Those that a refill finds."""
        rows = (row for row in self.rows.values() if row.waits and row.run.task_key == key)
        return sorted((row.run for row in rows if not self.held_back(row)), key=rank_of)

    def has_pool(self, key: str) -> bool:
        return key in self.lines

    # What the core does

    def changed(self) -> None:
        self.dispatcher.set_pool(self.settings)

    def released(self) -> None:
        """The filter may have a slot again: windows are read anew."""
        for key in QUEUES:
            self.dispatcher.mark_due(key)

    def free(self, run: QueuedRun, *, again: bool) -> None:
        """A run has no slot any more, by a commit."""
        self.rows[run.id].holder = None
        self.rows[run.id].over = not again or (run.task_key != TASK and not self.has_pool(run.task_key))
        if self.has_pool(run.task_key):
            self.dispatcher.free_slot(POOL, run.task_key)
        self.released()
        if self.rows[run.id].waits:
            self.dispatcher.enqueue(run)

    def refuse(self, reservation: Reservation) -> bool:
        """Refuse a lease as the database would, and tell the dispatcher what the core would."""
        run, key = reservation.run, reservation.run.task_key
        client = self.clients.get(reservation.session_id)
        if client is None or client.epoch != reservation.epoch:
            self.dispatcher.abort(reservation)
        elif not self.rows[run.id].waits:
            self.dispatcher.abort(reservation, requeue=False)
            self.dispatcher.mark_due(key)
        elif key != TASK and self.queue_closed(key):
            self.dispatcher.abort(reservation)
            self.dispatcher.shut_queue(key)
        elif key != TASK and self.pool_closed():
            self.dispatcher.abort(reservation)
            self.dispatcher.shut_pool(key)
        elif self.held_back(self.rows[run.id]):
            self.dispatcher.abort(reservation, requeue=False)
            self.dispatcher.reload(key)
        else:
            return False
        return True

    def refill(self) -> None:
        while wanted := self.dispatcher.refills_wanted():
            for key, ticket, limit in wanted:
                self.dispatcher.apply_refill(key, ticket, self.waiting(key)[:limit], limit)

    # Runs

    @initialize(
        counts=st.tuples(*[st.integers(1, 5)] * len(KEYS)),
        limits=st.tuples(*[LIMITS] * len(QUEUES)),
        limit=LIMITS,
        slots=st.sampled_from((2, 5, 9)),
    )
    def begin(
        self, counts: tuple[int, ...], limits: tuple[int | None, ...], limit: int | None, slots: int
    ) -> None:
        """Somebody serves all there is."""
        self.limit = limit
        for line, its_limit in zip(self.lines.values(), limits, strict=True):
            line.limit = its_limit
        self.open("s", Client(1, frozenset(KEYS), slots))
        for key, count in zip(KEYS, counts, strict=True):
            self.submit(key, count)

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 3), found=st.booleans())
    def submit(self, key: str, count: int, found: bool = False) -> None:
        for _ in range(count):
            if key == TASK or self.has_pool(key):
                self.made += 1
                run = make_run(f"{self.made:04}", key, due=self.made)
                self.rows[run.id] = Row(run, found=found and key != TASK)
                self.dispatcher.enqueue(run)
        self.refill()

    @rule(data=st.data())
    def poll(self, data: st.DataObject) -> None:
        """Somebody who polls starts a run, if queue and pool have room, and the filter that finds it."""
        open_ = [key for key in self.lines if not self.queue_closed(key) and not self.pool_closed()]
        runs = [run for key in open_ for run in self.waiting(key)]
        if runs:
            run = data.draw(st.sampled_from(runs))
            self.rows[run.id].holder = POLLER
            self.dispatcher.remove(run.task_key, run.id)
            self.refill()

    @precondition(lambda self: any(row.holder for row in self.rows.values()))
    @rule(data=st.data(), again=st.booleans(), at_rest=st.booleans())
    def end(self, data: st.DataObject, again: bool, at_rest: bool) -> None:
        """A run ends, or is given back, whoever had it."""
        row = data.draw(st.sampled_from([row for row in self.rows.values() if row.holder]))
        assert row.holder is not None
        if row.holder != POLLER:
            assert self.dispatcher.release(row.holder, row.run.id)
            self.clients[row.holder].flying.discard(row.run.id)
        self.free(row.run, again=again)
        self.refill()
        if at_rest:
            self.settle()

    # Queues and the pool

    @rule(key=st.sampled_from(QUEUES), limit=LIMITS, paused=PAUSED)
    def set_queue(self, key: str, limit: int | None, paused: bool) -> None:
        if self.has_pool(key):
            self.lines[key].limit, self.lines[key].paused = limit, paused
            self.changed()

    @rule(limit=LIMITS, paused=PAUSED)
    def set_pool(self, limit: int | None, paused: bool) -> None:
        self.limit, self.paused = limit, paused
        self.changed()

    @rule(limit=LIMITS)
    def set_filter(self, limit: int | None) -> None:
        self.filter_limit = limit
        self.released()
        self.refill()

    @rule(places=st.permutations(range(len(QUEUES))))
    def rank(self, places: list[int]) -> None:
        for line, place in zip(self.lines.values(), places, strict=False):
            line.place = place
        self.changed()

    @precondition(lambda self: len(self.lines) == len(QUEUES) and self.made > 30)
    @rule()
    def delete_queue(self) -> None:
        """Its runs belong to no queue then; who executes one goes on."""
        key = next(iter(self.lines))
        del self.lines[key]
        for row in self.rows.values():
            if row.run.task_key == key and row.waits:
                row.over = True
        self.changed()
        self.refill()

    # Sessions

    @rule(keys=SERVED, limit=st.integers(0, 5))
    def subscribe(self, keys: frozenset[str], limit: int) -> None:
        self.made += 1
        if len(self.clients) < 4:
            self.open(f"s{self.made}", Client(1, keys, limit))

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), keys=SERVED, limit=st.integers(0, 5))
    def resume(self, data: st.DataObject, keys: frozenset[str], limit: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.clients)))
        earlier = self.clients[name]
        self.open(name, Client(earlier.epoch + 1, keys, limit, flying=earlier.flying))

    def open(self, name: str, client: Client) -> None:
        keys = frozenset(key for key in client.keys if key == TASK or self.has_pool(key))
        if not keys:
            return
        client.keys = keys
        held = [(run_id, self.rows[run_id].run.task_key) for run_id in sorted(client.flying)]
        pools = [self.settings] if keys & self.lines.keys() else []
        self.dispatcher.subscribe(name, client.epoch, keys, client.limit, held, pools)
        self.clients[name] = client
        self.refill()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), limit=st.integers(0, 4))
    def set_limit(self, data: st.DataObject, limit: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.clients)))
        self.clients[name].limit = limit
        self.dispatcher.set_limit(name, limit)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), lost=st.booleans())
    def leave(self, data: st.DataObject, lost: bool) -> None:
        """A socket goes; or the session does, and what it held waits again."""
        name = data.draw(st.sampled_from(sorted(self.clients)))
        client = self.clients[name]
        if not lost:
            client.connected = False
            self.dispatcher.disconnect(name, client.epoch)
            return
        del self.clients[name]
        assert set(self.dispatcher.end_session(name)) == client.flying
        for run_id in sorted(client.flying):
            self.free(self.rows[run_id].run, again=True)
        self.refill()

    # The cycle

    @rule()
    def assign(self) -> None:
        """Whoever is given a run of a queue could not be given one of a better queue."""
        windows = {key: [run.id for run in self.dispatcher.queue(key) or ()] for key in KEYS}
        for reservation in self.dispatcher.assign():
            run, client = reservation.run, self.clients[reservation.session_id]
            assert client.connected
            assert run.task_key in client.keys
            assert run.id == windows[run.task_key].pop(0), "not the first of its queue"
            if run.task_key != TASK:
                self.check_order(run.task_key, client, windows)
            self.pending.append(reservation)
        self.refill()

    def check_order(self, key: str, client: Client, windows: dict[str, list[str]]) -> None:
        """The model counts what is reserved as taken, as it may become; the dispatcher must not count more."""
        assert not self.paused
        if key not in self.lines:
            return
        assert not self.lines[key].paused
        for better in client.keys & self.lines.keys():
            if self.lines[better].place < self.lines[key].place and windows[better]:
                assert self.queue_closed(better, self.reserved(better)), (better, key)

    @precondition(lambda self: self.pending)
    @rule(count=st.integers(1, 5))
    def commit(self, count: int) -> None:
        for _ in range(min(count, len(self.pending))):
            reservation = self.pending.popleft()
            if not self.refuse(reservation):
                self.lease(reservation)
            self.refill()

    def lease(self, reservation: Reservation) -> None:
        run, name = reservation.run, reservation.session_id
        assert not self.held_back(self.rows[run.id])
        self.rows[run.id].holder = name
        if self.dispatcher.confirm(reservation):
            assert self.clients[name].connected
            self.clients[name].flying.add(run.id)
        else:
            assert not self.clients[name].connected
            self.free(run, again=True)

    # What always holds

    @invariant()
    def the_sessions_hold_what_the_model_says(self) -> None:
        for name, client in self.clients.items():
            assert set(self.dispatcher.in_flight(name)) == client.flying
            mine = sum(one.session_id == name and one.epoch == client.epoch for one in self.pending)
            assert self.dispatcher.free_slots(name) == max(0, client.limit - len(client.flying) - mine)

    @invariant()
    def only_pools_that_somebody_serves_are_kept(self) -> None:
        served = {key for client in self.clients.values() for key in client.keys if key != TASK}
        assert set(self.dispatcher.served_queues) == served
        assert set(self.dispatcher.served_pools) == ({POOL} if served else set())

    @rule()
    def settle(self) -> None:
        """At rest nothing waits that somebody could be given, and it comes to rest."""
        for _ in range(4 * len(self.rows) + 8):
            self.assign()
            if not self.pending:
                break
            while self.pending:
                self.commit(5)
        assert not self.pending, "the same runs are reserved and refused again and again"
        for client in self.clients.values():
            if client.connected and client.limit > len(client.flying):
                for key in client.keys & {TASK, *self.lines}:
                    closed = key != TASK and (self.queue_closed(key) or self.pool_closed())
                    assert closed or not self.waiting(key), (key, client)

    def teardown(self) -> None:
        self.settle()


TestPoolsMachine = PoolsMachine.TestCase
TestPoolsMachine.settings = settings(PROPERTY, max_examples=200, stateful_step_count=50)
