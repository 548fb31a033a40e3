"""`/api/task_run_states`: what has happened to a run."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from runlane.protocol.ids import is_id

from ..core.core import Core
from .http import InvalidBody, json
from .rendering import render_state


class TaskRunStates:
    """The routes, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def of_run(self, request: Request) -> Response:
        """`GET /api/task_run_states/?task_run_id=`: the run's states, oldest first; none of an unknown run."""
        run_id = request.query_params.get("task_run_id", "").lower()
        if not is_id(run_id):
            raise InvalidBody("Expected a UUID", "task_run_id", "value_error", place="query")
        return json([render_state(state) for state in await self._core.store.history(run_id)])
