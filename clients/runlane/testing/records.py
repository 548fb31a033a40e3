"""Runs as tests look at them."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..endings import error_of
from ..errors import PayloadError, RunError, RunlaneError
from ..protocol.messages import RunFinished, RunState
from ..protocol.payloads import ABSENT
from ..protocol.states import FINAL, StateType
from ..serializers import ANY_RESULT, dump
from ..tasks import Task

if TYPE_CHECKING:
    from runlane_broker.storage.records import RunRecord as StoredRun

#: Runs that a message lists, at most.
_LISTED: Final = 10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Characters of one run in a message, at most.
_WIDTH: Final = 160


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it was at one moment.

    `parameters` are those that the function is called with, by name, defaults included; they and `result` have
    the types of the function's annotations. `exception` is what the task has raised last, the very object;
    `error` is what a future of the run raises.
    """

    id: str
    task_key: str
    name: str
    parameters: Mapping[str, Any]
    state: StateType
    state_name: str
    message: str | None
    attempt: int
    failures: int
    priority: int
    due: datetime
    started: datetime | None
    ended: datetime | None
    result: Any
    error: RunError | None
    exception: BaseException | None = field(repr=False, default=None)
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    idempotency_key: str | None = None

    def __str__(self) -> str:
        return f"{_call(self.task_key, self.parameters)}  {self.state_name}"


def record_of(run: StoredRun, task: Task[..., Any] | None, exception: BaseException | None) -> RunRecord:
    """Return a run of the database as tests see it; `task` is None where there is none of its key."""
    return RunRecord(
        id=run.id,
        task_key=run.task_key,
        name=run.name,
        parameters=_parameters(run, task),
        state=run.state.type,
        state_name=run.state.name,
        message=run.state.message,
        attempt=run.attempt,
        failures=run.failures,
        priority=run.priority,
        due=_time(run.due),
        started=None if run.start_time is None else _time(run.start_time),
        ended=None if run.end_time is None else _time(run.end_time),
        result=_result(run, task),
        error=_error(run),
        exception=exception,
        tags=run.tags,
        headers=run.headers,
        idempotency_key=run.idempotency_key,
    )


def named_arguments(task: Task[..., Any] | None, args: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return some of a task's arguments by name. Raises `TypeError` for one that the task has not."""
    if task is not None:
        return dict(inspect.signature(task.function).bind_partial(*args, **given).arguments)
    if args:
        raise TypeError("positional arguments need a task, not a key")
    return dict(given)


def matches(run: RunRecord, arguments: Mapping[str, Any]) -> bool:
    """Say whether a run was submitted with these arguments, among others maybe."""
    return all(name in run.parameters and _same(run.parameters[name], value) for name, value in arguments.items())


def describe_mismatch(
    key: str, arguments: Mapping[str, Any], wanted: str, found: Sequence[RunRecord], runs: Sequence[RunRecord]
) -> str:
    """Return the message of an assertion about submitted runs that has failed."""
    times = {0: "not", 1: "once"}.get(len(found), f"{len(found)} times")
    lines = [f"{_call(key, arguments, partial=True)} was {times} submitted, expected {wanted}"]
    of_key = [run for run in runs if run.task_key == key]
    if of_key:
        lines.append(f"submitted of {key}, oldest first:")
        lines += [f"  {run}" for run in of_key[:_LISTED]]
        lines += [f"  … and {len(of_key) - _LISTED} more"] if len(of_key) > _LISTED else []
    elif runs:
        others = Counter(run.task_key for run in runs)
        lines.append(f"nothing of {key} was; submitted were: " + ", ".join(f"{k} x{n}" for k, n in others.items()))
    else:
        lines.append("nothing was submitted at all")
    return "\n".join(lines)


def _call(key: str, arguments: Mapping[str, Any], *, partial: bool = False) -> str:
    inside = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    text = f"{key}({inside or ('…' if partial else '')})"
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…)"


def _same(actual: object, expected: object) -> bool:
    """Compare as Python does, and if that says no as JSON: without an annotation a tuple arrives as a list."""
    try:
        if actual == expected:
            return True
        return msgspec.json.decode(dump(actual, "it")) == msgspec.json.decode(dump(expected, "it"))
    except (PayloadError, ValueError):  # the latter where arrays are compared
        return False


def _parameters(run: StoredRun, task: Task[..., Any] | None) -> Mapping[str, Any]:
    raw = msgspec.Raw(run.parameters)
    if task is not None:
        try:
            args, kwargs = task.arguments.unpack(raw, run.headers)
            return dict(inspect.signature(task.function).bind(*args, **kwargs).arguments)
        except (RunlaneError, TypeError):  # it will fail for that; what was sent can be shown all the same
            pass
    return msgspec.json.decode(raw)


def _result(run: StoredRun, task: Task[..., Any] | None) -> Any:
    if run.state.type is not StateType.COMPLETED or run.result is None:
        return None
    results = ANY_RESULT if task is None else task.results
    try:
        return results.unpack(msgspec.Raw(run.result))
    except RunlaneError:  # not of the annotated type: that is for its future to complain about
        return ANY_RESULT.unpack(msgspec.Raw(run.result))


def _error(run: StoredRun) -> RunError | None:
    state = run.state
    if state.type not in FINAL or state.type is StateType.COMPLETED:
        return None
    payload = ABSENT if run.error is None else msgspec.Raw(run.error)
    said = RunState(type=state.type, name=state.name, message=state.message)
    return error_of(RunFinished(id=run.id, state=said, error=payload))


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
