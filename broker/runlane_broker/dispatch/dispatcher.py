"""Which session gets which run. Synchronous: every call returns the work to do, and the caller does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from .group import Group, Session
from .multiqueue import MultiQueue
from .places import Place, PlaceKind, Places, Reservation
from .pools import Pool, PoolSettings, ServedPools
from .queue import DEFAULT_WINDOW_SIZE, RefillTicket, TaskQueue
from .runs import QueuedRun


class Dispatcher:
    """Windows, sessions and the runs between them.

    Reserve, commit, confirm: `assign` puts runs and slots aside, the caller commits the leases and answers
    each reservation with `confirm` or `abort`. A run is in at most one place: in a window, reserved, or in
    flight; what is in none is in the database only, and its key's queue knows that there may be such runs.

    Outcomes of commits are told in the order of the commits. No cost depends on idle sessions or keys.
    """

    __slots__ = (
        "_arriving", "_groups", "_groups_of", "_low", "_news", "_places", "_pools", "_queues", "_ready",
        "_sessions", "_tick", "_window_size", "_window_sizes",
    )  # fmt: skip

    def __init__(
        self, window_size: int = DEFAULT_WINDOW_SIZE, window_sizes: Mapping[str, int] | None = None
    ) -> None:
        self._window_size = window_size
        self._window_sizes: dict[str, int] = {}
        self._sessions: dict[str, Session] = {}
        self._queues: dict[str, TaskQueue] = {}
        self._groups: dict[frozenset[str], Group] = {}
        self._groups_of: dict[str, dict[Group, None]] = {}
        self._pools = ServedPools()
        self._places = Places()
        # Submits in the writer that were not handed off, by key; outlives the key's queue.
        self._arriving: dict[str, int] = {}
        # What was last heard of runs while they were reserved or in flight, and counts once they leave: added
        # (the run) or removed (`None`).
        self._news: dict[str, QueuedRun | None] = {}
        # Groups that may have both a run and a free slot; empty after each `assign`.
        self._ready: dict[Group, None] = {}
        # Keys whose queues may want a refill.
        self._low: dict[str, None] = {}
        self._tick = 0
        for key, size in (window_sizes or {}).items():
            self.configure_task_key(key, size)

    def __repr__(self) -> str:
        queued = sum(map(len, self._queues.values()))
        in_flight = sum(len(session.in_flight) for session in self._sessions.values())
        return (
            f"<Dispatcher sessions={len(self._sessions)} groups={len(self._groups)} keys={len(self._queues)}"
            f" queued={queued} reserved={len(self._places) - in_flight} in_flight={in_flight}>"
        )

    def configure_task_key(self, key: str, window_size: int) -> None:
        """Bound the window of a key, both lanes together. What no longer fits waits in the database alone."""
        self._window_sizes[key] = window_size
        if (queue := self._queues.get(key)) is not None:
            queue.resize(window_size)

    # Sessions

    def subscribe(
        self,
        session_id: str,
        epoch: int,
        keys: Iterable[str],
        limit: int,
        in_flight: Iterable[tuple[str, str]] = (),
        pools: Iterable[PoolSettings] = (),
    ) -> None:
        """Let a connected session serve `keys` with at most `limit` runs; it has `in_flight` (id, key).

        `pools` are those of which `keys` has queues. A session of that id at a lower epoch is replaced: what
        it held and is not in `in_flight` is forgotten, and its reservations are orphans, which `confirm`
        refuses. Raises `ValueError` if its epoch is not lower.
        """
        earlier = self._sessions.get(session_id)
        if earlier is not None and earlier.epoch >= epoch:
            raise ValueError(f"session {session_id} is at epoch {earlier.epoch}, not before {epoch}")
        served = frozenset(keys)
        for settings in pools:
            self._reopen(self._pools.serve(settings, served))
        session = Session(session_id, epoch, self._group(served), limit, self._next_tick())
        session.group.join(session)  # before the earlier one leaves, so that the windows stay
        if earlier is not None:
            session.served = earlier.served
            self._drop(earlier)
        self._sessions[session_id] = session
        for run_id, task_key in in_flight:
            self._adopt(session, run_id, task_key)
        self._offer(session)
        for key in sorted(session.group.keys):
            self._watch_level(self._queues[key])

    def resume(
        self,
        session_id: str,
        epoch: int,
        keys: Iterable[str],
        limit: int,
        in_flight: Iterable[tuple[str, str]] = (),
        pools: Iterable[PoolSettings] = (),
    ) -> None:
        """Let a session come back at a higher epoch: the same as `subscribe`."""
        self.subscribe(session_id, epoch, keys, limit, in_flight, pools)

    def set_limit(self, session_id: str, limit: int, ahead: int = 0) -> None:
        """Change how many runs a session may hold; 0 pauses it. Nothing is taken away. Unknown: ignored.

        It may be given `ahead` more, but only what nobody has a free slot for.
        """
        session = self._sessions.get(session_id)
        if session is not None:
            session.limit, session.ahead = limit, ahead
            self._offer(session)

    def pause(self, session_id: str) -> None:
        """Give a session nothing more, because its socket is slow. Its slots stay. Unknown: ignored."""
        self._set_paused(session_id, paused=True)

    def unpause(self, session_id: str) -> None:
        """Give a session runs again. Unknown: ignored."""
        self._set_paused(session_id, paused=False)

    def disconnect(self, session_id: str, epoch: int) -> None:
        """Give a session nothing more, its socket is gone; it keeps what it holds. Other epoch: ignored."""
        session = self._current(session_id, epoch)
        if session is not None:
            session.group.disconnect(session)

    def end_session(self, session_id: str) -> list[str]:
        """Forget a session that has quit or is lost, and return the runs it had in flight. Unknown: none.

        Its reservations stay until they are answered: `confirm` refuses them. The windows of keys that nobody
        else serves are dropped.
        """
        session = self._sessions.pop(session_id, None)
        if session is None:
            return []
        held = list(session.in_flight)
        self._drop(session)
        return held

    # Pools

    def set_pool(self, settings: PoolSettings) -> None:
        """Take notice of a pool that has changed, or one of its queues. One that nobody serves is ignored."""
        pool = self._pools.get(settings.id)
        if pool is not None:
            for key in pool.set(settings):
                self.reload(key)  # what was in its window is in no queue now
            self._reopen(pool)

    def free_slot(self, pool_id: str, key: str) -> None:
        """Note that a run of a work queue takes its slot no more, whoever held it: its end is committed."""
        pool = self._pools.get(pool_id)
        if pool is not None:
            self._give_back(pool, key)

    def shut_queue(self, key: str) -> None:
        """Note that the database leases no more of a work queue's runs, until a slot of it is free."""
        pool = self._pools.of(key)
        if pool is not None:
            pool.gates(key)[0].shut()

    def shut_pool(self, key: str) -> None:
        """Note the same of the whole pool of a work queue."""
        pool = self._pools.of(key)
        if pool is not None:
            pool.gate.shut()

    @property
    def served_queues(self) -> Collection[str]:
        """The keys of the work queues that some session serves."""
        return tuple(self._pools.by_key)

    @property
    def served_pools(self) -> Collection[str]:
        """The ids of the pools of which some session serves a queue."""
        return self._pools.ids

    # Runs

    def enqueue(self, run: QueuedRun) -> None:
        """Take notice of a committed run that is dispatchable now; if nobody serves its key, nothing is kept.

        A run that is still reserved or in flight is taken notice of when it leaves, unless a lease takes it
        first.
        """
        if run.id in self._places:
            self._news[run.id] = run
            return
        queue = self._queues.get(run.task_key)
        if queue is not None:
            was_empty = not queue
            queue.put(run)
            self._after_change(queue, was_empty=was_empty)

    def remove(self, task_key: str, run_id: str) -> None:
        """Forget a queued run that was cancelled or deleted. A reserved one does not come back if it aborts."""
        if run_id in self._places:
            self._news[run_id] = None
        queue = self._queues.get(task_key)
        if queue is not None:
            queue.remove(run_id)
            self._watch_level(queue)

    def assign(self) -> list[Reservation]:
        """Reserve all that can be assigned now; each next run is for the session with the most free slots."""
        heap = [(best, group) for group in self._ready if (best := group.best()) is not None]
        self._ready.clear()
        heapify(heap)
        reservations: list[Reservation] = []
        while heap:
            (_, _, _, session), group = heap[0]
            run = group.queue.get_nowait()
            if run is not None:
                reservations.append(self._reserve(run, session))
                self._watch_level(self._queues[run.task_key])
            best = group.best()
            if run is None or best is None:
                heappop(heap)
            else:
                heapreplace(heap, (best, group))
        return reservations

    def hand_off(self, run: QueuedRun) -> Reservation | None:
        """Reserve a slot for a run that is about to be inserted, so that insert and lease are one commit.

        `None` if a run of the key may be before it (in the window, in the database, or in the writer), if no
        session with a free slot waits for the key, or if the run is reserved or in flight already (it is a
        resubmission). Then the caller calls `expect`, inserts, `add`s what was inserted, and calls `arrived`.
        """
        queue = self._queues.get(run.task_key)
        if queue is None or queue or not queue.complete:
            return None
        if run.task_key in self._arriving or run.id in self._places:
            return None
        session = self._waiting(run.task_key)
        return None if session is None else self._reserve(run, session, handed_off=True)

    def expect(self, task_key: str) -> None:
        """Note a submit on its way to the writer: until it has `arrived`, its key hands nothing off."""
        self._arriving[task_key] = self._arriving.get(task_key, 0) + 1

    def arrived(self, task_key: str) -> None:
        """Note the end of a submit that was expected, whether it was committed or not."""
        left = self._arriving[task_key] - 1
        if left:
            self._arriving[task_key] = left
        else:
            del self._arriving[task_key]

    def confirm(self, reservation: Reservation) -> bool:
        """Note that a lease is committed. True: the run is in flight, push it.

        False: the session is gone, disconnected or resumed meanwhile; the caller releases the lease.
        """
        if not self._places.holds(reservation):
            return False
        run = reservation.run
        self._news.pop(run.id, None)  # what was committed before the lease is not news after it
        self._leave(run.id, run.task_key)
        session = self._current(reservation.session_id, reservation.epoch)
        if session is None:
            return False
        session.reserved -= 1
        if session.connected:
            session.in_flight[run.id] = None
            self._places.hold(run.id, run.task_key, session.id)
            return True
        return False

    def abort(self, reservation: Reservation, *, requeue: bool = True) -> None:
        """Note that a lease was not committed: the slot is free, and the run back in its place.

        With `requeue=False` the run is dropped: its row is no longer dispatchable, or was never inserted. If
        it was handed off, there may have been a row of its id before, and one that has come due since: refills
        left it out as reserved, so the key is read once more.
        """
        if not self._places.holds(reservation):
            return
        run = reservation.run
        if requeue:
            self._news.setdefault(run.id, run)
        session = self._current(reservation.session_id, reservation.epoch)
        if session is not None:
            session.reserved -= 1
            self._offer(session)
        self._leave(run.id, run.task_key)
        if (pool := self._pools.of(run.task_key)) is not None:
            self._give_back(pool, run.task_key)
        if reservation.handed_off and not requeue:
            self.mark_due(run.task_key)

    def release(self, session_id: str, run_id: str) -> bool:
        """Note that a run left a session (finished, released, lease lost). False: it was not there."""
        session = self._sessions.get(session_id)
        if session is None or run_id not in session.in_flight:
            return False
        self._forget_in_flight(session, run_id)
        self._offer(session)
        return True

    # Refills

    def mark_due(self, key: str) -> None:
        """Note that scheduled runs of a key came due in the database."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.mark_stale()
            self._watch_level(queue)

    def reload(self, key: str) -> None:
        """Note that the database holds runs back that are in a key's window: it is read anew, without them."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.reload()
            self._watch_level(queue)

    def refills_wanted(self) -> list[tuple[str, RefillTicket, int]]:
        """Begin the refills that are wanted now, and return key, ticket and limit of each.

        For each the caller reads the first `limit` due runs of the key in the order of rank, after this call,
        and answers with `apply_refill` or `abandon_refill`. Only for keys that a connected session serves.
        """
        low, self._low = self._low, {}
        wanted = [self._queues[key] for key in low if self._is_served(key) and self._queues[key].wants_refill]
        return [
            # The reserved ones still look dispatchable in the database, and must not crowd the others out.
            (queue.key, queue.begin_refill(), queue.size + self._places.reserved_of(queue.key))
            for queue in wanted
        ]

    def apply_refill(self, key: str, ticket: RefillTicket, rows: Sequence[QueuedRun], limit: int) -> bool:
        """Fill a window with rows read for a refill. False: the window was dropped, they are ignored."""
        queue = self._queues.get(key)
        if queue is None:
            return False
        was_empty = not queue
        applied = queue.apply_refill(ticket, rows, limit=limit, busy=self._places.__contains__)
        self._after_change(queue, was_empty=was_empty)
        return applied

    def abandon_refill(self, key: str, ticket: RefillTicket) -> None:
        """Give a refill up, because the read failed. `refills_wanted` returns it again: wait first."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.abandon_refill(ticket)
            self._watch_level(queue)

    # Questions

    @property
    def sessions(self) -> Collection[str]:
        """The ids of all sessions, connected or not."""
        return tuple(self._sessions)

    def demanded_keys(self) -> Collection[str]:
        """Return the keys that some session serves, connected or not."""
        return tuple(self._queues)

    def has_demand(self, key: str) -> bool:
        """Say whether some session serves a key, connected or not."""
        return key in self._queues

    def queue(self, key: str) -> TaskQueue | None:
        """Return the window of a key, to look at."""
        return self._queues.get(key)

    def in_flight(self, session_id: str) -> Collection[str]:
        """Return the runs in flight at a session, oldest first. Unknown: none."""
        session = self._sessions.get(session_id)
        return () if session is None else tuple(session.in_flight)

    def free_slots(self, session_id: str) -> int:
        """Return how many more runs a session may hold, connected or not. Unknown: 0."""
        session = self._sessions.get(session_id)
        return 0 if session is None else max(0, session.free)

    def has_free_slot(self, key: str) -> bool:
        """Say whether some session could be given a run of a key now, within its limit."""
        bests = (group.best() for group in self._groups_of.get(key, ()))
        return any(best is not None and best[3].free > 0 for best in bests)

    def reserved(self, session_id: str) -> int:
        """Return how many runs are reserved for a session. Unknown: 0."""
        session = self._sessions.get(session_id)
        return 0 if session is None else session.reserved

    def place_of(self, run_id: str) -> Place | None:
        """Return where a run is; `None`: in the database at most. Asks every window if it is not held."""
        held = self._places.get(run_id)
        if held is not None:
            return held
        keys = (key for key, queue in self._queues.items() if run_id in queue)
        key = next(keys, None)
        return None if key is None else Place(PlaceKind.QUEUED, key)

    # For who looks for mistakes of ours

    def reservations(self) -> Collection[Reservation]:
        """Return the reservations that are not answered yet."""
        return self._places.reservations()

    def stalled_keys(self) -> list[str]:
        """Return the keys whose windows want a refill that `refills_wanted` would not return: always none."""
        wanting = (key for key, queue in self._queues.items() if queue.wants_refill and key not in self._low)
        return [key for key in wanting if self._is_served(key)]

    def overlooked_keys(self) -> list[str]:
        """Return the keys of which `assign` would give out runs: none, where it is called after each change."""
        ready = [group for group in self._ready if group.best() is not None]
        return sorted({key for group in ready for key in group.keys if self._queues[key]})

    def recount(self) -> list[str]:
        """Set right how many places each session has reserved; return the sessions where it was wrong: none."""
        counts = Counter((r.session_id, r.epoch) for r in self._places.reservations())
        wrong = [s for s in self._sessions.values() if s.reserved != counts[s.id, s.epoch]]
        for session in wrong:
            session.reserved = counts[session.id, session.epoch]
            self._offer(session)
        return [session.id for session in wrong]

    # Sessions and groups, inside

    def _next_tick(self) -> int:
        self._tick += 1
        return self._tick

    def _current(self, session_id: str, epoch: int) -> Session | None:
        session = self._sessions.get(session_id)
        return session if session is not None and session.epoch == epoch else None

    def _set_paused(self, session_id: str, *, paused: bool) -> None:
        session = self._sessions.get(session_id)
        if session is not None:
            session.paused = paused
            self._offer(session)

    def _offer(self, session: Session) -> None:
        """Let a session that has changed take part in the next `assign`."""
        if session.group.offer(session):
            self._ready[session.group] = None

    def _waiting(self, key: str) -> Session | None:
        """Return the session with the most free slots that serves a key and has nothing else to take."""
        groups = (group for group in self._groups_of[key] if not group.queue.ready)
        best = min((best for group in groups if (best := group.best()) is not None), default=None)
        return None if best is None else best[3]

    def _is_served(self, key: str) -> bool:
        return any(group.connected for group in self._groups_of.get(key, ()))

    def _group(self, keys: frozenset[str]) -> Group:
        """Return the group of a key set; made with its windows if it is the first."""
        group = self._groups.get(keys)
        if group is not None:
            return group
        for key in sorted(keys - self._queues.keys()):
            self._queues[key] = TaskQueue(key, self._window_sizes.get(key, self._window_size))
            self._groups_of[key] = {}
        group = self._groups[keys] = Group(MultiQueue(keys, self._queues, self._pools.by_key))
        for key in keys:
            self._groups_of[key][group] = None
        return group

    def _drop(self, session: Session) -> None:
        """Let a session go, with its group if it was the last, and the windows that nobody serves now."""
        for run_id in list(session.in_flight):
            self._forget_in_flight(session, run_id)
        group = session.group
        group.leave(session)
        if group:
            return
        del self._groups[group.keys]
        self._ready.pop(group, None)
        for key in group.keys:
            del self._groups_of[key][group]
            if not self._groups_of[key]:
                del self._groups_of[key]
                del self._queues[key]
                self._low.pop(key, None)
                self._pools.leave(key)

    # Runs, inside

    def _reserve(self, run: QueuedRun, session: Session, *, handed_off: bool = False) -> Reservation:
        reservation = Reservation(run, session.id, session.epoch, handed_off)
        self._places.reserve(reservation)
        if (pool := self._pools.of(run.task_key)) is not None:
            pool.take(run.task_key)
        session.reserved += 1
        session.served = self._next_tick()
        session.group.offer(session)
        return reservation

    def _adopt(self, session: Session, run_id: str, task_key: str) -> None:
        """Note a run that a session holds already."""
        if run_id in session.in_flight:
            return
        reservation = self._places.reservation_of(run_id)
        if reservation is not None:  # of an earlier epoch: its `confirm` is refused
            self.abort(reservation, requeue=False)
        self.remove(task_key, run_id)
        self._places.hold(run_id, task_key, session.id)
        session.in_flight[run_id] = None

    def _forget_in_flight(self, session: Session, run_id: str) -> None:
        place = self._places.get(run_id)
        assert place is not None
        assert place.session_id == session.id
        del session.in_flight[run_id]
        self._leave(run_id, place.task_key)

    def _leave(self, run_id: str, task_key: str) -> None:
        """Let a run out of its place: rows being read know less of it. If it was added again, queue it."""
        self._places.leave(run_id)
        queue = self._queues.get(task_key)
        if queue is not None:
            queue.touch(run_id)
        added = self._news.pop(run_id, None)
        if added is not None:
            self.enqueue(added)

    # Pools, inside

    def _give_back(self, pool: Pool, key: str) -> None:
        pool.give_back(key)
        self._reopen(pool)

    def _reopen(self, pool: Pool) -> None:
        """Wake those who wait for a pool that may have something to give again."""
        for key in pool.keys:
            if self._queues.get(key):
                self._activate(key)

    def _activate(self, key: str) -> None:
        for group in self._groups_of[key]:
            group.queue.activate(key)
            self._ready[group] = None

    # Queues, inside

    def _after_change(self, queue: TaskQueue, *, was_empty: bool) -> None:
        """Wake those who wait for a key that has become non-empty."""
        if was_empty and queue:
            self._activate(queue.key)
        self._watch_level(queue)

    def _watch_level(self, queue: TaskQueue) -> None:
        """Remember a key whose queue may want a refill."""
        if queue.wants_refill:
            self._low[queue.key] = None
