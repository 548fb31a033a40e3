"""`/api/task_run_states`: what has happened to a run."""

from __future__ import annotations

from ..core.core import Core
from ..schemas.states import State, StateOfTaskRun
from ..storage.tables import TASK_RUN
from .rendering import render_state
from .routes import Route


class TaskRunStates:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def of_run(self, query: StateOfTaskRun) -> list[State]:
        """Return a run's states; none of an unknown run."""
        return [render_state(state, TASK_RUN) for state in await self._core.store.history(query.task_run_id)]


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    states = TaskRunStates(core)
    return [
        Route(
            method="GET",
            path="/api/task_run_states/",
            handler=states.of_run,
            summary="List a run's states, oldest first",
            tag="task_run_states",
            answers={200: list[State]},
            query=StateOfTaskRun,
        ),
    ]
