"""What stands in the database of sessions and leases, for who compares it with memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from runlane.protocol.states import StateType

from . import queries
from .queries import audit as q
from .records import SessionRecord
from .tables import FLOW_RUN, TASK_RUN

#: Slots that are looked at in one pass and must not be there.
_SLOTS = 100


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Where a run is. `task_key` is None for a flow run. `due` is in microseconds UTC."""

    id: str
    state: StateType
    session_id: str | None
    attempt: int
    due: int
    task_key: str | None = None
    withheld: bool = False


@dataclass(slots=True)
class Facts:
    """Sessions and runs by id."""

    sessions: dict[str, SessionRecord] = field(default_factory=dict[str, SessionRecord])
    runs: dict[str, RunFacts] = field(default_factory=dict[str, RunFacts])


class FactReader:
    """Reads beside the writer: what is found is a little older than memory."""

    def __init__(self, reading: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._reading = reading

    async def leases(self) -> Facts:
        """Return all sessions, and all runs that are held."""
        facts = Facts()
        async with self._reading() as connection:
            for row in await connection.execute(queries.read_sessions()):
                facts.sessions[row[0]] = SessionRecord(row[0], row[1], row[2])
            for kind in (TASK_RUN, FLOW_RUN):
                for id_, state, session_id, attempt, due in await connection.execute(q.read_leases(kind)):
                    facts.runs[id_] = RunFacts(id_, StateType(state), session_id, attempt, due)
        return facts

    async def idle_slots(self) -> tuple[str, ...]:
        """Return runs that have slots and neither run nor are being stopped."""
        async with self._reading() as connection:
            return tuple((await connection.execute(q.idle_slots(_SLOTS))).scalars())
