"""What can be asked of runs and done with them, of whichever kind: one implementation, two sets of routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..clock import MICROS_PER_SECOND, to_datetime
from ..core.core import Core
from ..errors import NotFound
from ..schemas.lists import HistoryBar, HistoryState, size_of
from ..schemas.states import OrchestrationResult, SetState, State
from ..storage.history import Bar
from ..storage.tables import RunKind
from .listing import Listed, Lists, list_routes
from .proposals import proposed_state
from .rendering import render_outcome, render_state
from .routes import Answer, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Listed):
    """One kind of run at this edge: its tables, its words, and its types."""

    runs: RunKind
    states_path: str
    update: type[msgspec.Struct]
    changes: Callable[[Any], Mapping[str, Any]]
    followed: type[msgspec.Struct]
    follows: type[msgspec.Struct]
    history: type[msgspec.Struct]
    states_of: type[msgspec.Struct]

    @property
    def missing(self) -> str:
        """What is said of a run that there is not."""
        return f"{self.noun.capitalize()} not found"


class Runs(Lists):
    """The use cases, on one core and one kind of run."""

    def __init__(self, core: Core, kind: Kind) -> None:
        self._core = core
        self._kind = kind
        self._reader = core.store.runs(kind.runs)
        super().__init__(self._reader, kind)

    async def read(self, id: str) -> Any:
        """Return a run."""
        run = await self._reader.get(id)
        if run is None:
            raise NotFound(self._kind.missing)
        return self._kind.render(run, self._core.clock.now())

    async def follow(self, body: Any) -> Any:
        """Return the runs after a cursor, and the cursor after them."""
        runs, following = await self._reader.cursor(body.filters(), body.sort, size_of(body.limit), body.cursor)
        return self._kind.follows(results=self._shown(runs), next=following)

    async def history(self, body: Any) -> list[HistoryBar]:
        """Return how many runs were expected when, and what became of them."""
        start, end, interval = body.stretch()
        bars = await self._reader.history(start, end, interval, self._core.clock.now(), body.filters())
        return [_bar(bar) for bar in bars]

    async def set_state(self, id: str, body: SetState) -> Answer:
        """Propose a state."""
        proposed = proposed_state(body.state)
        outcome = await self._core.transitions.set_state(self._kind.runs, id, proposed, force=body.force)
        if outcome is None:
            raise NotFound(f"{self._kind.noun.capitalize()} with id {id} not found")
        return Answer(201 if outcome.wrote else 200, render_outcome(outcome, self._kind.runs))

    async def update(self, id: str, body: Any) -> None:
        """Change what is given of a run; what is absent, or null, stays."""
        changes = self._kind.changes(body)
        if not changes:
            await self.read(id)
        elif not await self._core.transitions.change(self._kind.runs, id, changes):
            raise NotFound(self._kind.missing)

    async def delete(self, id: str) -> None:
        """Delete a run, wherever it is."""
        if not await self._core.transitions.delete(self._kind.runs, id):
            raise NotFound(self._kind.missing)

    async def states(self, query: Any) -> list[State]:
        """Return a run's states, oldest first; none of an unknown run."""
        run_id = getattr(query, f"{self._kind.runs.name}_id")
        return [render_state(state, self._kind.runs) for state in await self._reader.states(run_id)]

    async def state(self, id: str) -> State:
        """Return one state."""
        state = await self._reader.state(id)
        if state is None:
            raise NotFound(f"{self._kind.noun.capitalize()} state not found")
        return render_state(state, self._kind.runs)

    def _shown(self, found: Sequence[Any]) -> list[Any]:
        now = self._core.clock.now()
        return [self._kind.render(run, now) for run in found]


def _bar(bar: Bar) -> HistoryBar:
    return HistoryBar(
        interval_start=to_datetime(bar.start),
        interval_end=to_datetime(bar.end),
        states=[
            HistoryState(
                state_type=state.type.value,
                state_name=state.name,
                count_runs=state.count,
                sum_estimated_run_time=state.run_time / MICROS_PER_SECOND,
                sum_estimated_lateness=state.lateness / MICROS_PER_SECOND,
            )
            for state in bar.states
        ],
    )


def run_routes(runs: Runs, kind: Kind) -> list[Route]:
    """Return the routes that both kinds have."""
    tag, noun, one = kind.path.rpartition("/")[2], kind.noun, f"{kind.path}/{{id:uuid}}"
    gone = {404: f"There is no such {noun}"}

    def post(name: str, handler: Any, summary: str, body: Any, answer: Any) -> Route:
        path = f"{kind.path}/{name}"
        return Route(
            method="POST", path=path, handler=handler, summary=summary, tag=tag, answers={200: answer}, body=body
        )

    return [
        *list_routes(runs, kind),
        post("follow", runs.follow, f"List {noun}s by cursor, however many", kind.followed, kind.follows),
        post("history", runs.history, f"Count {noun}s by time and state", kind.history, list[HistoryBar]),
        Route(
            method="GET",
            path=one,
            handler=runs.read,
            summary=f"Read a {noun}",
            tag=tag,
            answers={200: kind.shown},
            refusals=gone,
        ),
        Route(
            method="PATCH",
            path=one,
            handler=runs.update,
            summary=f"Change a {noun}",
            tag=tag,
            answers={204: None},
            refusals=gone,
            body=kind.update,
        ),
        Route(
            method="DELETE",
            path=one,
            handler=runs.delete,
            summary=f"Delete a {noun}; if it waits it will never start",
            tag=tag,
            answers={204: None},
            refusals=gone,
        ),
        Route(
            method="POST",
            path=f"{one}/set_state",
            handler=runs.set_state,
            summary=f"Propose a state of a {noun}",
            tag=tag,
            answers={200: OrchestrationResult, 201: OrchestrationResult},
            refusals=gone,
            body=SetState,
        ),
        *_state_routes(runs, kind),
    ]


def _state_routes(runs: Runs, kind: Kind) -> list[Route]:
    tag = kind.states_path.rpartition("/")[2]
    return [
        Route(
            method="GET",
            path=f"{kind.states_path}/",
            handler=runs.states,
            summary=f"List the states of a {kind.noun}, oldest first",
            tag=tag,
            answers={200: list[State]},
            query=kind.states_of,
        ),
        Route(
            method="GET",
            path=f"{kind.states_path}/{{id:uuid}}",
            handler=runs.state,
            summary=f"Read a state of a {kind.noun}",
            tag=tag,
            answers={200: State},
            refusals={404: "There is no such state"},
        ),
    ]
