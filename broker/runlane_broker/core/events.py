"""Reports of clients that execute runs by themselves, one connection at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..errors import StoreUnavailable
from ..storage.operations.reporting import RecordReports, ReportedState
from .dispatching import RETRY_SECONDS
from .registry import Registry
from .transitions import Transitions


class Reporter:
    """One connection over which reports come. It is bound to the session whose runs it first reports.

    When that is lost, its runs may be with somebody else: then only another session of the same client counts.
    """

    def __init__(self, registry: Registry, transitions: Transitions) -> None:
        self._registry = registry
        self._transitions = transitions
        self._session_id: str | None = None
        self._client_id: str | None = None

    async def record(self, reports: Sequence[ReportedState]) -> None:
        """Record reports, however long the database cannot be written. Not to be called twice at a time."""
        if self._session_id is not None and self._registry.get(self._session_id) is None:
            self._session_id = None  # it was lost; the process may have another one by now
        operation = RecordReports(tuple(reports), self._session_id, self._candidates())
        while True:
            try:
                self._session_id = (await self._transitions.record(operation)).session_id
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._remember()
                return

    def _candidates(self) -> frozenset[str] | None:
        if self._session_id is not None or self._client_id is None:
            return None
        return frozenset(session.id for session in self._registry if session.client_id == self._client_id)

    def _remember(self) -> None:
        session = None if self._session_id is None else self._registry.get(self._session_id)
        if session is not None:
            self._client_id = session.client_id


class Events:
    """What comes in as events."""

    def __init__(self, registry: Registry, transitions: Transitions) -> None:
        self._registry = registry
        self._transitions = transitions

    def reporter(self) -> Reporter:
        """Return who records what comes over one connection."""
        return Reporter(self._registry, self._transitions)
