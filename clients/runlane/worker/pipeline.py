"""One run's way: slot -> parameters -> started -> call -> outcome."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ..errors import ArgumentError
from ..protocol.messages import Finished, Progress, PushedRun, Started
from ..tasks import Task
from . import context, outcomes
from .context import CurrentRun
from .reporter import Reporter
from .slots import Slots
from .threads import Raised, Returned, Threads

log: Final = logging.getLogger("runlane.worker")


class Step:
    """How far a run is on its way."""

    __slots__ = ("_context", "begun", "holds_slot", "in_thread", "run")

    def __init__(self, run: PushedRun) -> None:
        self.run = run
        self.begun = False  # its parameters are parsed
        self.in_thread = False  # it executes where nothing can stop it
        self.holds_slot = False
        self._context: CurrentRun | None = None

    def begin(self, current: CurrentRun, *, in_thread: bool) -> None:
        """Note that the task's own code is called now."""
        self._context = current
        self.begun, self.in_thread = True, in_thread

    def ask_to_stop(self) -> None:
        """Let a task that looks at `current_run().cancelled` know."""
        if self._context is not None:
            self._context.cancelled = True


class Pipeline:
    """Executes runs of these tasks, as many at once as there are slots."""

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        reporter: Reporter,
        slots: Slots,
        threads: Threads,
        max_payload_bytes: Callable[[], int],
    ) -> None:
        self._tasks = tasks
        self._reporter = reporter
        self._slots = slots
        self._threads = threads
        self._max_payload_bytes = max_payload_bytes

    def knows(self, run: PushedRun) -> bool:
        """Say whether the run is one of these tasks."""
        return run.kind == "task" and run.task_key in self._tasks

    async def run(self, step: Step) -> Finished:
        """Lead a run through; return its report. Cancelled only by being stopped from outside."""
        await self._slots.take()
        step.holds_slot = True
        try:
            return await self._with_slot(step)
        finally:
            if step.holds_slot:
                self._slots.give_back()

    async def _with_slot(self, step: Step) -> Finished:
        run, task = step.run, self._tasks[step.run.task_key]
        try:
            args, kwargs = task.arguments.unpack(run.parameters)
        except ArgumentError as exc:
            log.error("run %s of %s has bad parameters: %s", run.id, run.task_key, exc)
            return outcomes.failed(run, exc, retriable=False)
        step.begin(self._enter(run), in_thread=not task.is_async)
        self._reporter.started(Started(id=run.id, attempt=run.attempt, at=datetime.now(UTC)))
        since = time.monotonic()
        report = await self._call(step, lambda: task.function(*args, **kwargs))
        log.info("run %s of %s: %s in %.3f s", run.id, run.task_key, report.state.type, time.monotonic() - since)
        return report

    def _enter(self, run: PushedRun) -> CurrentRun:
        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        def report(frame: Progress) -> None:
            if threading.get_ident() == thread:
                self._reporter.progress(frame)
            else:
                loop.call_soon_threadsafe(self._reporter.progress, frame)

        current = CurrentRun(run, report)
        context.enter(current)
        return current

    async def _call(self, step: Step, function: Callable[[], Any]) -> Finished:
        """Call the task within its timeout, and say how that went."""
        run = step.run
        scope = asyncio.timeout(run.timeout)
        try:
            async with scope:
                outcome = await self._outcome_of(step, function)
        except TimeoutError:
            if not scope.expired():
                raise
            step.ask_to_stop()
            log.warning("run %s of %s ran longer than %g s", run.id, run.task_key, run.timeout or 0)
            return outcomes.timed_out(run)
        if isinstance(outcome, Returned):
            return outcomes.completed(run, outcome.value, self._max_payload_bytes())
        log.warning("run %s of %s failed", run.id, run.task_key, exc_info=outcome.error)
        return outcomes.failed(run, outcome.error)

    async def _outcome_of(self, step: Step, function: Callable[[], Any]) -> Returned | Raised:
        if step.in_thread:
            return await self._threads.call(function, lambda: self._orphaned(step))
        try:
            return Returned(await function())
        except asyncio.CancelledError as exc:
            if _is_being_cancelled():
                raise
            return Raised(exc)  # the task's own doing
        except (Exception, SystemExit) as exc:  # a task that calls sys.exit() has failed; the worker goes on
            return Raised(exc)

    def _orphaned(self, step: Step) -> Callable[[], None]:
        """Leave the slot to the thread that goes on; return how it is freed."""
        step.holds_slot = False
        self._slots.stick()
        return self._slots.unstick


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
