"""The handle of a submitted run.

| to wait for              | in sync code        | in async code               |
|--------------------------|---------------------|-----------------------------|
| the result               | `future.result()`   | `await future`              |
| … not for ever           | `future.result(10)` | `await future.aresult(10)`  |
| the end, whichever it is | `future.wait()`     | `await future.await_()`     |
| the results of many      | `gather(*futures)`  | `await agather(*futures)`   |

`future.cancel()`, `cancel_many(futures)` and their async forms give runs up.

Nothing polls: a run is watched from the first of these calls on, and the broker pushes how it ends. In a task that
is a plain function and is to stop, waiting in sync code is a checkpoint.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Generator, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, overload
from uuid import UUID

from .client import Client, client_like, current, current_client, in_loop, may_block, run_sync, start_sync
from .endings import error_of
from .errors import ArgumentError, PayloadError, ResultError, RunlaneError, RunNotFound, SubmitRefused
from .protocol.ids import is_id
from .protocol.messages import RunFinished, RunProgress
from .protocol.states import FINAL, StateType
from .serializers import ANY_RESULT, Results
from .waits import pause, waiting

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

#: Seconds that sync code waits for the broker to confirm a cancel, by default.
CANCEL_SECONDS: Final = 30.0

#: How a run ended, or why nobody will hear of it.
_Ending: TypeAlias = RunFinished | RunlaneError


class RunFuture(Generic[R_co]):
    """A run's result, some day: `future.result()`, or `await future`.

    Any number of threads and asyncio tasks may wait, and any of them may give up, without an effect on the run.
    A future can be used in any thread and any event loop, whichever it came from.
    """

    __slots__ = (
        "__weakref__",
        "_client",
        "_ending",
        "_listener",
        "_listens_in",
        "_progress",
        "_results",
        "created",
        "id",
    )

    def __init__(
        self,
        run_id: str,
        client: Client | None = None,
        results: Results = ANY_RESULT,
        *,
        created: bool | None = None,
        refused: SubmitRefused | None = None,
    ) -> None:
        self.id: Final = run_id
        #: Whether the submission made the run (False: it was there, with this idempotency key; None: not known).
        self.created: Final = created
        self._client = client
        self._results = results
        self._ending: _Ending | None = refused
        self._progress: RunProgress | None = None
        self._listener: Future[_Ending] | asyncio.Future[_Ending] | None = None
        self._listens_in = 0  # the process in which it does: a forked child has a listener that never hears

    @classmethod
    def from_id(cls, run_id: str | UUID) -> RunFuture[Any]:
        """Return the future of any run, its result as plain JSON values; `Task.future` gives a typed one.

        Raises `ArgumentError` for what is no UUID. Whether there is such a run shows when it is waited for.
        """
        return RunFuture(checked_id(run_id))

    def __repr__(self) -> str:
        said = "refused" if self.refused else self._known_state() or "not heard of"
        return f"<RunFuture {self.id} {said}>"

    # --- What is known ----------------------------------------------------------------------------------

    @property
    def state(self) -> StateType | None:
        """The last state that was pushed; from the first look on it is kept up to date.

        SCHEDULED until the run has told of its progress or has ended; None for a `from_id` that has not.
        Raises what keeps the run from being watched: `RunNotFound`, `ConnectionFailed` …
        """
        self._listen()
        return self._known_state()

    @property
    def progress(self) -> RunProgress | None:
        """What the task last said of its progress; from the first look on it is kept up to date."""
        self._listen()
        return self._progress

    @property
    def refused(self) -> SubmitRefused | None:
        """Why the broker has not taken the run, where it has not."""
        return self._ending if isinstance(self._ending, SubmitRefused) else None

    def done(self) -> bool:
        """Say whether the run has ended, as far as `state` knows."""
        return self.state in FINAL

    # --- Waiting ----------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> R_co:
        """Wait for the run's end, at most `timeout` seconds, and return its result.

        Raises `TimeoutError`; a `RunError` that says how the run ended instead; `ResultError` where the result
        is not of the annotated type; `RunNotFound`, `ConnectionFailed`, `ClientClosed`; and `WouldBlock` where
        an event loop runs, unless the run is known to have ended.
        """
        return self._value_of(self._block(timeout, "result()", "await future"))

    async def aresult(self, timeout: float | None = None) -> R_co:
        """Wait for the result in an event loop; `await future` is the same, without a timeout."""
        return self._value_of(await self._end_in_time(timeout))

    def __await__(self) -> Generator[Any, None, R_co]:
        return self.aresult().__await__()

    def wait(self, timeout: float | None = None) -> StateType:
        """Wait for the run's end, at most `timeout` seconds, and return its last state, good or bad.

        Raises what `result` does, but for `RunError` and `ResultError`.
        """
        return self._block(timeout, "wait()", "await future.await_()").state.type

    async def await_(self, timeout: float | None = None) -> StateType:
        """Wait for the run's end in an event loop."""
        return (await self._end_in_time(timeout)).state.type

    # --- Giving up --------------------------------------------------------------------------------------

    def cancel(self, timeout: float | None = CANCEL_SECONDS) -> StateType:
        """Have the run cancelled, and return its state then. Waits for the broker (so many seconds), for no task.

        CANCELLED: it will never start. CANCELLING: a worker has it, and is told to stop it; `wait` says how it
        ends. COMPLETED, FAILED …: it had ended already. Raises `TimeoutError`, `RunNotFound`, `CancelRefused`,
        `ConnectionFailed`, `ClientClosed`; and `WouldBlock` where an event loop runs.
        """
        if isinstance(self._ending, RunFinished):
            return self._ending.state.type
        may_block("cancel()", "await future.acancel()")
        return run_sync(_in_time(self.acancel(), timeout, f"the broker has not cancelled run {self.id}"))

    async def acancel(self) -> StateType:
        """Have the run cancelled, in an event loop; see `cancel`. However long the broker cannot be reached."""
        if self._ending is not None:
            return (await self._end()).state.type
        (state,) = await _cancelled((self.id,), client_like(self._client))
        if state is None:
            raise RunNotFound(self.id)
        return state

    # --- Inside -----------------------------------------------------------------------------------------

    def _known_state(self) -> StateType | None:
        if isinstance(self._ending, RunFinished):
            return self._ending.state.type
        if self._progress is not None:
            return StateType.RUNNING
        return None if self.created is None else StateType.SCHEDULED

    def _listen(self) -> None:
        """Have the run watched from now on. Raises what kept it from being watched until now."""
        if isinstance(self._ending, RunlaneError):
            raise self._ending
        if self._ending is not None or self._is_listening():
            return
        failed = self._listener
        self._listener = asyncio.ensure_future(self._ended()) if in_loop() else start_sync(self._ended)
        self._listens_in = os.getpid()
        if failed is not None and failed.done() and not failed.cancelled():
            self._value_of(failed.result())

    def _is_listening(self) -> bool:
        return self._listener is not None and not self._listener.done() and self._listens_in == os.getpid()

    async def _end(self) -> RunFinished:
        """Wait for the end, in whichever loop this is."""
        if self._ending is None:
            self._ending = await client_like(self._client).watch(self.id, self._note)
        if isinstance(self._ending, RunlaneError):
            raise self._ending
        return self._ending

    async def _ended(self) -> _Ending:
        try:
            return await self._end()
        except RunlaneError as exc:
            return exc

    async def _end_in_time(self, seconds: float | None) -> RunFinished:
        if self._ending is not None:
            return await self._end()
        with waiting():
            return await _in_time(self._end(), seconds, f"run {self.id} has not ended")

    def _block(self, seconds: float | None, call: str, instead: str) -> RunFinished:
        if isinstance(self._ending, RunFinished):
            return self._ending
        may_block(call, instead)
        if seconds is None:
            current.check_wait((self.id,))
        return run_sync(self._end_in_time(seconds), pause)

    def _note(self, progress: RunProgress) -> None:
        self._progress = progress

    def _value_of(self, ending: _Ending) -> R_co:
        if isinstance(ending, RunlaneError):
            raise ending
        if ending.state.type is not StateType.COMPLETED:
            raise error_of(ending)
        try:
            return self._results.unpack(ending.result)
        except PayloadError as exc:
            raise ResultError(str(exc)) from exc


@overload
def gather(
    *futures: RunFuture[T], timeout: float | None = None, return_exceptions: Literal[False] = False
) -> list[T]: ...
@overload
def gather(
    *futures: RunFuture[T], timeout: float | None = None, return_exceptions: bool
) -> list[T | RunlaneError]: ...
def gather(*futures: RunFuture[Any], timeout: float | None = None, return_exceptions: bool = False) -> list[Any]:
    """Wait for all of the runs, at most `timeout` seconds, and return their results in order.

    The first run that fails ends the waiting, and its error is raised; with `return_exceptions` errors stand
    among the results. Raises `TimeoutError`, `ArgumentError` for what is no future, and `WouldBlock` where an
    event loop runs.
    """
    may_block("gather()", "await agather(…)")
    _check(futures)
    if timeout is None:
        current.check_wait([future.id for future in futures])
    ends = run_sync(_ends(futures, timeout, fail_fast=not return_exceptions), pause)
    return _results(futures, ends, return_exceptions=return_exceptions)


@overload
async def agather(
    *futures: RunFuture[T], timeout: float | None = None, return_exceptions: Literal[False] = False
) -> list[T]: ...
@overload
async def agather(
    *futures: RunFuture[T], timeout: float | None = None, return_exceptions: bool
) -> list[T | RunlaneError]: ...
async def agather(
    *futures: RunFuture[Any], timeout: float | None = None, return_exceptions: bool = False
) -> list[Any]:
    """Wait for all of the runs as `gather` does, in an event loop."""
    _check(futures)
    ends = await _ends(futures, timeout, fail_fast=not return_exceptions)
    return _results(futures, ends, return_exceptions=return_exceptions)


def cancel_many(
    runs: Iterable[RunFuture[Any] | str | UUID], timeout: float | None = CANCEL_SECONDS
) -> list[StateType | None]:
    """Have runs cancelled, by their futures or ids; return their states then, in order. None: no such run.

    See `RunFuture.cancel`. Not atomic: where it raises, some may have been cancelled. Raises `TimeoutError`,
    `ArgumentError` for what is no id, `ConnectionFailed` …, and `WouldBlock` where an event loop runs.
    """
    may_block("cancel_many()", "await acancel_many(…)")
    ids = _ids_of(runs)
    return run_sync(_in_time(_cancelled(ids), timeout, f"the broker has not cancelled all of {len(ids)} runs"))


async def acancel_many(runs: Iterable[RunFuture[Any] | str | UUID]) -> list[StateType | None]:
    """Have runs cancelled as `cancel_many` does, in an event loop, and however long it takes."""
    return await _cancelled(_ids_of(runs))


def checked_id(run_id: str | UUID) -> str:
    """Return a run's id in its canonical form. Raises `ArgumentError`."""
    text = str(run_id).lower()
    if not is_id(text):
        raise ArgumentError(f"{str(run_id)[:40]!r} is no id of a run: those are UUIDs")
    return text


def _ids_of(runs: Iterable[RunFuture[Any] | str | UUID]) -> list[str]:
    return [run.id if isinstance(run, RunFuture) else checked_id(run) for run in runs]


async def _cancelled(run_ids: Sequence[str], client: Client | None = None) -> list[StateType | None]:
    answers = await (client or current_client()).cancel(run_ids)
    return [None if answer.state is None else answer.state.type for answer in answers]


def _check(futures: Sequence[object]) -> None:
    for one in futures:
        if not isinstance(one, RunFuture):
            raise ArgumentError(
                f"{type(one).__name__} is no future of a run; those of a list are gather(*futures)"
            )


async def _ends(futures: Sequence[RunFuture[Any]], seconds: float | None, *, fail_fast: bool) -> list[Any]:
    """Wait for all; return states, or what keeps runs from being watched. The first that fails is raised."""
    wait = _success if fail_fast else RunFuture[Any].await_
    waiting = [asyncio.ensure_future(wait(future)) for future in futures]
    try:
        ends = asyncio.gather(*waiting, return_exceptions=not fail_fast)
        return await _in_time(ends, seconds, f"not all of {len(waiting)} runs have ended")
    finally:
        for one in waiting:
            one.cancel()


async def _success(future: RunFuture[Any]) -> StateType:
    state = await future.await_()
    if state is not StateType.COMPLETED:
        future.result()  # raises why
    return state


def _results(futures: Sequence[RunFuture[Any]], ends: Sequence[Any], *, return_exceptions: bool) -> list[Any]:
    results: list[Any] = []
    for future, end in zip(futures, ends, strict=True):
        try:
            if isinstance(end, BaseException):
                raise end
            results.append(future.result())  # it has ended: nothing is waited for
        except RunlaneError as exc:
            if not return_exceptions:
                raise
            results.append(exc)
    return results


async def _in_time(waiting: Awaitable[T], seconds: float | None, late: str) -> T:
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await waiting
    except TimeoutError:
        if scope.expired():
            raise TimeoutError(f"{late} within {seconds:g} s") from None
        raise
