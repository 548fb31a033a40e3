"""Runs of a broker that are given up, or taken up again, over its HTTP API: by id, or all task runs that fit.

runs = TaskRuns()
runs.cancel("0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90")
runs.cancel_all(keys=["tasks.report"], states=["SCHEDULED"])
runs.requeue_all(keys=["tasks.report"])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from .config import ClientSection, load_config
from .errors import ArgumentError
from .futures import checked_id
from .protocol.states import StateName, StateType
from .rest import ask

#: Seconds that one request may take: the broker changes up to 10,000 runs in each.
_PATIENCE: Final = 60.0
_TYPES: Final = tuple(type_.value for type_ in StateType)
#: The names, as they are written, of states that say more than their type.
_NAMES: Final = {
    name.lower(): name
    for name in (*(name.value for name in StateName if name.upper() not in _TYPES), "Late", "Suspended")
}


class _Runs:
    """What can be done with runs by their ids. All raise `rest.RequestRefused`, and `rest.NotReached`.

    A `client` of None is read from the settings.
    """

    path: ClassVar[str]

    def __init__(self, client: ClientSection | None = None) -> None:
        self._client = client or load_config().of(ClientSection)

    def cancel(self, run_id: str) -> dict[str, Any]:
        """Cancel a run; return the state that it is in then: one that has ended stays as it is."""
        return self._ask(f"{checked_id(run_id)}/cancel")

    def requeue(self, run_id: str) -> dict[str, Any]:
        """Queue a parked run again; return its state. One that is not parked is refused (409)."""
        return self._ask(f"{checked_id(run_id)}/requeue")

    def _ask(self, path: str, body: Any = None) -> Any:
        return ask(self._client, "POST", f"{self.path}/{path}", body, _PATIENCE)


class FlowRuns(_Runs):
    """What can be done with flow runs."""

    path = "/flow_runs"


class TaskRuns(_Runs):
    """What can be done with task runs: the same, and with many at once."""

    path = "/task_runs"

    def cancel_all(
        self,
        *,
        keys: Sequence[str] = (),
        states: Sequence[str] = (),
        tags: Sequence[str] = (),
        every: bool = False,
    ) -> Mapping[str, int]:
        """Cancel the runs of these keys, in one of these states (types or names), with all of these tags.

        Returns how many have been `cancelled`, and how many are `cancelling`, for a worker has them. What is not
        given does not matter; where nothing is, `every` has to be. Raises `ArgumentError` besides.
        """
        return self._ask_on("cancel", _chosen(keys, states, tags, every=every))

    def requeue_all(self, *, keys: Sequence[str] = (), tags: Sequence[str] = ()) -> Mapping[str, int]:
        """Queue again all parked runs, or those of these keys, and with all of these tags; return the counts."""
        return self._ask_on("requeue", _chosen(keys, (), tags, every=True))

    def _ask_on(self, what: str, chosen: Mapping[str, Any]) -> Mapping[str, int]:
        """Ask until there are no more; return the sums of what is counted."""
        counts: Counter[str] = Counter()
        more = True
        while more:
            answer = self._ask(what, chosen)
            more = answer.pop("more")
            counts.update(answer)
        return counts


def _chosen(keys: Sequence[str], states: Sequence[str], tags: Sequence[str], *, every: bool) -> Mapping[str, Any]:
    filter_: dict[str, Any] = {}
    if keys:
        filter_["task_key"] = {"any_": list(keys)}
    if tags:
        filter_["tags"] = {"all_": list(tags)}
    if states:
        filter_["state"] = _in_one_of(states)
    if not filter_ and not every:
        raise ArgumentError("say which runs: keys, states or tags, or `every`")
    return {"task_runs": filter_} if filter_ else {"all": True}


def _in_one_of(states: Sequence[str]) -> Mapping[str, Any]:
    """Return the filter of these types and names. Raises `ArgumentError` for what is neither."""
    types = [state.upper() for state in states if state.upper() in _TYPES]
    names = [_NAMES.get(state.lower(), state) for state in states if state.upper() not in _TYPES]
    for name in names:
        if name.lower() not in _NAMES:
            known = ", ".join((*_TYPES, *sorted(_NAMES.values())))
            raise ArgumentError(f"{name!r} is no state; known are {known}")
    either = {"type": {"any_": types}, "name": {"any_": names}}
    return {"operator": "or_", **{what: one for what, one in either.items() if one["any_"]}}
