"""Outcomes of runs: what all ask for at the same time is read at once.

Who watches runs asks for a few of them, very often. One read for each would cost a connection and a handful of
thread switches every time, and whoever asks without end would take both from everybody else. So one read is under
way at a time; what is asked for meanwhile waits for the next one, in its order, and each run is read once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from runlane.protocol.states import FINAL, StateType

from .listing import Reading
from .queries import OUTCOMES
from .records import FinalRun

#: Runs that one read is about: their results may be large.
_IDS_PER_READ: Final = 50

Outcomes: TypeAlias = Mapping[str, FinalRun | None]


class OutcomeReader:
    """Reads for everybody. Who stops waiting stops nobody else. Lives on one event loop."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._asked: deque[tuple[Sequence[str], asyncio.Future[Outcomes]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def of(self, ids: Sequence[str]) -> dict[str, FinalRun | None]:
        """Return the outcome of each of these runs that exists; None where it has not ended.

        What was committed before the call is seen. Raises `StoreUnavailable`.
        """
        found: dict[str, FinalRun | None] = {}
        for start in range(0, len(ids), _IDS_PER_READ):
            found.update(await self._some(ids[start : start + _IDS_PER_READ]))
        return found

    async def close(self) -> None:
        """Wait for the read that is under way."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _some(self, ids: Sequence[str]) -> dict[str, FinalRun | None]:
        answer: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        self._asked.append((ids, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._read_all(), name="outcomes")
        found = await answer
        return {run_id: found[run_id] for run_id in ids if run_id in found}

    async def _read_all(self) -> None:
        try:
            while self._asked:
                await self._read(self._batch())
        finally:
            self._task = None

    def _batch(self) -> list[tuple[Sequence[str], asyncio.Future[Outcomes]]]:
        """Take those that have waited longest, as many as one read is for, but for those who have gone."""
        batch: list[tuple[Sequence[str], asyncio.Future[Outcomes]]] = []
        wanted: set[str] = set()
        while self._asked and len(wanted.union(self._asked[0][0])) <= _IDS_PER_READ:
            ids, answer = self._asked.popleft()
            if not answer.done():
                wanted.update(ids)
                batch.append((ids, answer))
        return batch

    async def _read(self, batch: Sequence[tuple[Sequence[str], asyncio.Future[Outcomes]]]) -> None:
        try:
            found = await self._look({run_id for ids, _ in batch for run_id in ids})
        except Exception as exc:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(exc)
        else:
            for _, answer in batch:
                if not answer.done():
                    answer.set_result(found)

    async def _look(self, ids: Iterable[str]) -> Outcomes:
        async with self._reading() as connection:
            rows = (await connection.execute(OUTCOMES, {"ids_": sorted(ids)})).all()
        found: dict[str, FinalRun | None] = {}
        for run_id, key, type_, name, message, result, error in rows:
            state = StateType(type_)
            final = FinalRun(run_id, key, state, name, message, result, error) if state in FINAL else None
            found[run_id] = final
        return found
