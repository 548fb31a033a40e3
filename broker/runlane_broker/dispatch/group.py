"""Sessions as dispatch sees them, and the groups of sessions that serve the same keys."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Final, TypeAlias

from .multiqueue import MultiQueue

#: Outdated entries that a group's heap may hold beyond one per session before it is rebuilt.
_SLACK: Final = 8


class Session:
    """One subscription of one worker at one epoch: how many runs it may hold, and which it does."""

    __slots__ = (
        "ahead", "connected", "entry", "epoch", "group", "id", "in_flight", "limit", "order", "paused", "reserved",
        "served",
    )  # fmt: skip

    def __init__(self, session_id: str, epoch: int, group: Group, limit: int, order: int) -> None:
        self.id = session_id
        self.epoch = epoch
        self.group = group
        self.limit = limit
        #: How many runs beyond the limit may be given to it while nobody else is free for them.
        self.ahead = 0
        #: Unique: the last word among equals.
        self.order = order
        self.connected = True
        self.paused = False
        self.reserved = 0
        #: The ids of the runs that it holds; a dict for its order.
        self.in_flight: dict[str, None] = {}
        #: When it was last given a run, as a count of reservations; 0: never.
        self.served = 0
        #: Its current entry in the heap of its group; written by the group.
        self.entry: Candidate | None = None

    def __repr__(self) -> str:
        state = "paused" if self.paused else "connected"
        return (
            f"<Session {self.id!r} epoch={self.epoch} {state if self.connected else 'disconnected'}"
            f" in_flight={len(self.in_flight)} reserved={self.reserved} limit={self.limit}>"
        )

    @property
    def free(self) -> int:
        """How many more runs it may be given. Negative after its limit was lowered below what it holds."""
        return self.limit - self.reserved - len(self.in_flight)

    @property
    def eligible(self) -> bool:
        """Whether it may be given a run now."""
        return self.connected and not self.paused and self.free + self.ahead > 0


#: Minus the free slots, when last served, order, session. The smallest goes first; `order` is unique. So whoever
#: is given runs ahead comes after all who are free, and the one that was given least of that first.
Candidate: TypeAlias = tuple[int, int, int, Session]


class Group:
    """The sessions of one key set: they share a MultiQueue and a heap, the most free slots first.

    The heap is lazy: a session that changes gets a new entry, and the outdated one is skipped when it comes
    up, or swept out when there are more of them than sessions.
    """

    __slots__ = ("_heap", "_sessions", "connected", "queue")

    def __init__(self, queue: MultiQueue) -> None:
        self.queue = queue
        #: How many of its sessions are connected.
        self.connected = 0
        self._sessions: dict[Session, None] = {}
        self._heap: list[Candidate] = []

    def __repr__(self) -> str:
        return f"<Group keys={len(self.queue.keys)} sessions={len(self)} connected={self.connected}>"

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def keys(self) -> frozenset[str]:
        """The keys that its sessions serve."""
        return self.queue.keys

    def join(self, session: Session) -> None:
        """Take a new session in, which is connected."""
        self._sessions[session] = None
        self.connected += 1
        self.offer(session)

    def leave(self, session: Session) -> None:
        """Let a session go for good."""
        self.disconnect(session)
        del self._sessions[session]
        if not self._sessions:
            self._heap.clear()  # outdated entries lead back here

    def disconnect(self, session: Session) -> None:
        """Note that a session's socket is gone."""
        self.connected -= session.connected
        session.connected = False
        session.entry = None

    def offer(self, session: Session) -> bool:
        """Bring a session's entry up to date after any change, and say whether it may be given a run."""
        if not session.eligible:
            session.entry = None
            return False
        entry = (-session.free, session.served, session.order, session)
        session.entry = entry
        heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._sessions) + _SLACK:
            self._sweep()
        return True

    def best(self) -> Candidate | None:
        """Return the entry of the session with the most free slots; of equals the least recently served."""
        heap = self._heap
        while heap and heap[0] is not heap[0][3].entry:
            heappop(heap)
        return heap[0] if heap else None

    def _sweep(self) -> None:
        entries: Iterable[Candidate | None] = (session.entry for session in self._sessions)
        self._heap = [entry for entry in entries if entry is not None]
        heapify(self._heap)
