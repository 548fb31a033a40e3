"""Calling a task: parameters -> begun -> function -> report. The same in every pool, and in its processes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol

from ..protocol.messages import PushedRun
from ..tasks import Task
from ..waits import Waits, tell_waits
from . import outcomes
from .context import CurrentRun, Snooze, enter
from .outcomes import Report
from .progress import LatestProgress

log: Final = logging.getLogger("runlane.worker")


class Call(Protocol):
    """One call of a task. (An `Execution` is one, and so is what a process makes of it.)"""

    #: What it waits for, from when it is called: to be interrupted where a plain function is to stop.
    waits: Waits | None

    @property
    def run(self) -> PushedRun: ...
    @property
    def task(self) -> Task[..., Any]: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def resources(self) -> Any: ...
    @property
    def cancelled(self) -> bool: ...
    def tell_begun(self) -> None: ...
    def tell_progress(self, progress: LatestProgress, /) -> None: ...
    def tell_waiting(self, waits: bool, /) -> None: ...


#: What a coroutine function may raise: all but GeneratorExit, by which a loop that ends lets go of a coroutine.
#: The last two would end the loop, and the worker with it. (A Ctrl-C is none of them: see `signals`.)
_RAISED: Final = (Exception, Snooze, asyncio.CancelledError, SystemExit, KeyboardInterrupt)


class _BadParameters(Exception):
    """The parameters do not fit the function: a retry would not help."""


def execute(call: Call, max_payload_bytes: int) -> Report:
    """Call a plain function, and say how it went. Raises nothing that the task does."""
    try:
        args, kwargs = _begin(call)
        value = call.task.function(*args, **kwargs)
    except BaseException as exc:  # a task that calls sys.exit() has failed; the worker goes on
        return _report_of(call, exc)
    return _completed(call, value, max_payload_bytes)


async def aexecute(call: Call, max_payload_bytes: int) -> Report:
    """Call a coroutine function, and say how it went. Raises nothing that the task does."""
    try:
        args, kwargs = _begin(call)
        value = await call.task.function(*args, **kwargs)
    except _RAISED as exc:
        return _report_of(call, exc)
    return _completed(call, value, max_payload_bytes)


def _begin(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        arguments = call.task.arguments.unpack(call.run.parameters, call.run.headers)
    except Exception as exc:
        raise _BadParameters from exc
    progress = LatestProgress(call.tell_progress)
    has_checkpoints = not call.task.is_async
    run = CurrentRun(call.run, call.timeout, progress.put, call, call.resources, has_checkpoints=has_checkpoints)
    enter(run)
    call.waits = tell_waits(call.tell_waiting, run.checkpoint)
    if call.cancelled:  # before there was anything to interrupt
        call.waits.interrupt()
    call.tell_begun()
    return arguments


def _completed(call: Call, value: object, max_payload_bytes: int) -> Report:
    run = call.run
    try:
        report = outcomes.completed(run, value, call.task.results, max_payload_bytes)
    except Exception as exc:  # code of the result's own, that says how it is sent
        return _report_of(call, exc)
    if report.state.type == "FAILED":  # nothing was raised that would say why
        log.warning("run %s of %s failed: %s", run.id, run.task_key, report.state.message)
    return report


def _report_of(call: Call, error: BaseException) -> Report:
    run = call.run
    if isinstance(error, Snooze):
        return outcomes.released(run, "The task snoozed.", error.seconds)
    if isinstance(error, _BadParameters) and error.__cause__ is not None:
        log.error("run %s of %s has bad parameters: %s", run.id, run.task_key, error.__cause__)
        return outcomes.failed(run, error.__cause__, retriable=False)
    if call.cancelled and isinstance(error, asyncio.CancelledError):
        return outcomes.cancelled(run)
    log.warning("run %s of %s: the task raised", run.id, run.task_key, exc_info=error)
    return outcomes.failed(run, error, retriable=None if call.task.may_retry(error) else False)
