"""What the services ask before they write anything: when there is something to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from sqlalchemy.ext.asyncio import AsyncConnection

from .queries import expiry, late
from .tables import FLOW_RUN, TASK_RUN, RunKind


class UpkeepReader:
    """Each answer is the first entry of an index. Times are microseconds UTC."""

    def __init__(self, reading: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._reading = reading
        self._next_expiry = expiry.next_expiry()
        self._next_due = {kind: late.first_due(kind) for kind in (TASK_RUN, FLOW_RUN)}

    async def next_expiry(self) -> int | None:
        """Return when the first run that waits expires; None if none does."""
        async with self._reading() as connection:
            return (await connection.execute(self._next_expiry)).scalar_one()

    async def next_due(self, kind: RunKind) -> int | None:
        """Return when the first run is due that waits and is not Late; None if none waits."""
        async with self._reading() as connection:
            return (await connection.execute(self._next_due[kind])).scalar_one()
