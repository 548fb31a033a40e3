"""The ends of task runs as events, for all that wait for them: read once, and sent to each.

There is no store of events: what has ended stands in the database, and that is asked. So none is ever dropped, and
who comes back gets what he has missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from functools import cached_property
from typing import Final

import msgspec
from msgspec.structs import replace

from runlane.protocol.states import FINAL

from ..api.rendering import render_state
from ..clock import Micros, to_datetime
from ..core.core import Core
from ..core.dispatching import RETRY_SECONDS
from ..errors import StoreUnavailable
from ..storage.records import FinalRun
from ..storage.run_records import RunRecord
from ..storage.tables import TASK_RUN
from .reading import TASK_RUN_PREFIX

#: Runs that are read together: so few that nobody notices how long it takes to make records of them.
_PAGE: Final = 50

#: An end that is recorded so long after it was, in microseconds, is late; so many of these are remembered.
_LATE: Final = 1_000_000
_MAX_LATE: Final = 20_000

#: What an event tells of its state; the rest stands beside it.
_OF_STATE: Final = ("type", "name", "message", "state_details", "data")

_encode = msgspec.json.Encoder().encode


class EndEvent:
    """The end of a run, as an event. `message` is what is sent; the rest is what filters look at."""

    def __init__(self, run: RunRecord) -> None:
        # Thousands may wait for a slow client, and payloads may be large. None is told here.
        self._run = replace(run, parameters=b"", result=None, error=None)
        self.id: Final = run.state.id
        self.name: Final = f"{TASK_RUN_PREFIX}{run.state.name}"
        self.resource_id: Final = f"{TASK_RUN_PREFIX}{run.id}"

    def __repr__(self) -> str:
        return f"<EndEvent {self.name} of {self.resource_id}>"

    @cached_property
    def message(self) -> str:
        """The event as JSON. Made once for all who want it, and not at all where nobody does."""
        return _rendered(self._run, self)


Listener = Callable[[Sequence[EndEvent]], None]


class EndFeed:
    """Tells listeners of every end of a task run, from when they begin to listen."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._reader = core.store.task_runs
        self._listeners: set[Listener] = set()
        self._ended: list[str] = []
        #: When the latest late ends were recorded, and of which runs: who has been away looks for them where they
        #: have ended, before his time. What was recorded before this broker started is found by its end alone.
        self._late: deque[tuple[Micros, str]] = deque(maxlen=_MAX_LATE)
        self._reading: asyncio.Task[None] | None = None
        #: How many ends it has heard of, and how many of these it has told.
        self.heard = self.told = 0
        core.hub.listen(self._finished)

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Generator[None]:
        """Tell `listener` while the block runs."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    async def before(self, since: Micros) -> AsyncGenerator[list[EndEvent]]:
        """Yield what has ended from `since` on, or was recorded as ended, page by page, the earliest first.

        What was recorded late comes last. Raises `StoreUnavailable`.
        """
        seen: set[str] = set()
        at, after = since, ""
        while runs := await self._reader.ended(at, after, _PAGE):
            at, after = runs[-1].end_time or at, runs[-1].id
            seen.update(run.id for run in runs)
            yield [EndEvent(run) for run in runs if run.state.type in FINAL]
        late = [run_id for recorded, run_id in self._late if recorded >= since and run_id not in seen]
        for start in range(0, len(late), _PAGE):
            runs = await self._reader.those(late[start : start + _PAGE])
            yield [EndEvent(run) for run in runs if run.state.type in FINAL]

    def _finished(self, run: FinalRun) -> None:
        now = self._core.clock.now()
        if run.ended is not None and run.ended < now - _LATE:
            self._late.append((now, run.id))
        if not self._listeners:
            return
        self._ended.append(run.id)
        self.heard += 1
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        """Read what has ended, for as long as something ends meanwhile."""
        try:
            while self._ended:
                page = self._ended[:_PAGE]
                try:
                    runs = await self._reader.those(page)
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                del self._ended[: len(page)]
                self.told += len(page)
                self._tell([EndEvent(run) for run in runs if run.state.type in FINAL])
        finally:
            self._reading = None

    def _tell(self, events: Sequence[EndEvent]) -> None:
        for listener in tuple(self._listeners):
            listener(events)


def _rendered(run: RunRecord, of: EndEvent) -> str:
    state = run.state
    occurred = to_datetime(state.timestamp)
    shown = render_state(state, TASK_RUN)
    event = {
        "id": state.id,
        "occurred": occurred,
        "received": occurred,
        "event": of.name,
        "resource": {
            "prefect.resource.id": of.resource_id,
            "prefect.resource.name": run.name,
            "prefect.run-count": str(run.run_count),
            "prefect.state-message": state.message or "",
            "prefect.state-name": state.name,
            "prefect.state-timestamp": occurred,
            "prefect.state-type": state.type.value,
            "prefect.orchestration": "server",
        },
        "related": _related(run),
        "payload": {
            "intended": {"from": None, "to": state.type.value},
            "initial_state": None,
            "validated_state": {name: getattr(shown, name) for name in _OF_STATE},
            "task_run": {"name": run.name, "task_key": run.task_key, "dynamic_key": run.dynamic_key},
        },
        "follows": None,
    }
    return _encode({"type": "event", "event": event}).decode()


def _related(run: RunRecord) -> list[dict[str, str]]:
    tags = [(f"prefect.tag.{tag}", "tag") for tag in run.tags]
    flow = [] if run.flow_run_id is None else [(f"prefect.flow-run.{run.flow_run_id}", "flow-run")]
    return [{"prefect.resource.id": id_, "prefect.resource.role": role} for id_, role in (*flow, *tags)]
