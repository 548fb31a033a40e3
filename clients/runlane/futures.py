"""The handle of a submitted run."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar, cast

import msgspec

from .client import Client
from .errors import (
    PayloadError,
    ResultError,
    RunCancelled,
    RunCrashed,
    RunError,
    RunExpired,
    RunFailed,
    RunParked,
    RunTimedOut,
)
from .protocol.messages import RunFinished, RunProgress
from .protocol.payloads import ABSENT
from .protocol.states import StateName, StateType
from .serializers import ValueType, load

R_co = TypeVar("R_co", covariant=True)

_ANYTHING = ValueType(Any)


class RunFuture(Generic[R_co]):
    """A run's result, some day: `await future`, or `await future.result(timeout=10)`.

    The run is watched from the first `await` on, and its end is pushed; nothing polls. Any number of tasks
    may wait, and any of them may be cancelled without an effect on the run.
    """

    def __init__(self, run_id: str, client: Client, result_type: ValueType = _ANYTHING) -> None:
        self.id = run_id
        self._client = client
        self._result_type = result_type
        self._finished: RunFinished | None = None
        self._progress: RunProgress | None = None

    def __repr__(self) -> str:
        return f"<RunFuture {self.id} {self.state}>"

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.result().__await__()

    @property
    def state(self) -> StateType:
        """The last state that this handle has heard of: it listens only while somebody awaits it."""
        if self._finished is not None:
            return self._finished.state.type
        return StateType.RUNNING if self._progress is not None else StateType.SCHEDULED

    @property
    def progress(self) -> RunProgress | None:
        """What the task last said of its progress, as far as this handle has heard."""
        return self._progress

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait for the run's end, at most `timeout` seconds, and return its result.

        Raises `TimeoutError`, a `RunError` that says how the run ended instead, `ResultError` where the
        result is not of the annotated type, `RunNotFound`, `ConnectionFailed` or `ClientClosed`.
        """
        if self._finished is None:
            async with asyncio.timeout(timeout):
                self._finished = await self._client.watch(self.id, self._note_progress)
        return self._value_of(self._finished)

    def _note_progress(self, progress: RunProgress) -> None:
        self._progress = progress

    def _value_of(self, finished: RunFinished) -> R_co:
        if finished.state.type is not StateType.COMPLETED:
            raise error_of(finished)
        if finished.result == ABSENT:
            return cast("R_co", None)
        try:
            return self._result_type.convert(load(finished.result, "the result"), "the result")
        except PayloadError as exc:
            raise ResultError(str(exc)) from exc


class _RemoteError(msgspec.Struct):
    """What a worker says of an exception."""

    type: str = "unknown"
    message: str = ""
    traceback: str = ""


def error_of(finished: RunFinished) -> RunError:
    """Return the error that stands for a run which has ended without a result."""
    run_id, state = finished.id, finished.state
    match state.type:
        case StateType.FAILED:
            remote = _remote_error(finished)
            kind = RunTimedOut if state.name == StateName.TIMED_OUT else RunFailed
            return kind(run_id, state, remote.type, remote.message, remote.traceback)
        case StateType.CANCELLED:
            return (RunExpired if state.name == StateName.EXPIRED else RunCancelled)(run_id, state)
        case StateType.CRASHED:
            return (RunParked if state.name == StateName.PARKED else RunCrashed)(run_id, state)
        case _:
            return RunError(run_id, state)


def _remote_error(finished: RunFinished) -> _RemoteError:
    """Read the error payload; what is no error of ours says at least what the state says."""
    try:
        return msgspec.json.decode(finished.error, type=_RemoteError)
    except msgspec.DecodeError:
        return _RemoteError(message=finished.state.message or "")
