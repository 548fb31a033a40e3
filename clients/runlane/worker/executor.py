"""What is pushed is executed: every run in an asyncio task of its own, which `Pipeline` leads through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from ..protocol.messages import Finished, PushedRun
from . import outcomes
from .pipeline import Pipeline, Step
from .reporter import Reporter, RunKey

log: Final = logging.getLogger("runlane.worker")

#: Seconds after which a run of a task that this worker does not have is offered again, to another.
UNKNOWN_TASK_DELAY: Final = 5.0
#: Seconds that a task which is stopped may take to clean up, when the worker itself must end.
CLEANUP_SECONDS: Final = 2.0


class Stop(Enum):
    """Why an execution was stopped from outside. Each member's comment says what is reported."""

    CANCELLED = auto()  # finished CANCELLED
    LOST = auto()  # nothing: the lease is gone
    RELEASED = auto()  # the run is given back


@dataclass(eq=False)
class _Execution:
    """A run that is executed here."""

    step: Step
    task: asyncio.Task[Finished]
    stop: Stop | None = None


class Executor:
    """Holds what is being executed, stops it when told to, and reports how it ended."""

    def __init__(self, pipeline: Pipeline, reporter: Reporter) -> None:
        self._pipeline = pipeline
        self._reporter = reporter
        self._executions: dict[RunKey, _Execution] = {}
        self._draining = False

    def __repr__(self) -> str:
        return f"<Executor {len(self._executions)} runs>"

    def __len__(self) -> int:
        return len(self._executions)

    # --- What the session calls --------------------------------------------------------------------------

    def start(self, runs: Sequence[PushedRun]) -> None:
        """Execute these runs."""
        for run in runs:
            key = (run.id, run.attempt)
            if self._draining:
                self._reporter.release(key, "the worker drains")
            elif not self._pipeline.knows(run):
                log.warning("this worker has no task %s; giving run %s back", run.task_key, run.id)
                self._reporter.release(key, f"no task {run.task_key} here"[:200], UNKNOWN_TASK_DELAY)
            else:
                self._start(key, Step(run))

    def cancel(self, key: RunKey, grace_seconds: float) -> None:
        """Stop a run; a plain function has the grace to see `current_run().cancelled` and end by itself."""
        execution = self._executions.get(key)
        if execution is None:
            return
        execution.step.ask_to_stop()
        if execution.step.in_thread:
            asyncio.get_running_loop().call_later(grace_seconds, self._stop, execution, Stop.CANCELLED)
        else:
            self._stop(execution, Stop.CANCELLED)

    def lose(self, key: RunKey) -> None:
        """Stop a run whose lease is lost."""
        execution = self._executions.get(key)
        if execution is not None:
            log.warning("lost the lease of run %s", key[0])
            self._stop(execution, Stop.LOST)

    # --- What the worker calls ---------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Start nothing more, finish what runs within this time, and give the rest back."""
        self._draining = True
        self._stop_all(execution for execution in self._executions.values() if not execution.step.begun)
        await self._wait(seconds)
        await self.abort()

    async def abort(self) -> None:
        """Give back whatever has not ended."""
        self._draining = True
        self._stop_all(self._executions.values())
        await self._wait(CLEANUP_SECONDS)
        for key in self._executions:  # tasks that will not be stopped
            self._reporter.release(key, "the worker ends")

    # --- Inside ------------------------------------------------------------------------------------------

    def _start(self, key: RunKey, step: Step) -> None:
        task = asyncio.create_task(self._pipeline.run(step))
        execution = self._executions[key] = _Execution(step, task)
        task.add_done_callback(lambda _: self._ended(key, execution))

    def _stop(self, execution: _Execution, why: Stop) -> None:
        if execution.task.done():
            return
        execution.step.ask_to_stop()
        execution.stop = why
        execution.task.cancel()

    def _stop_all(self, executions: Iterable[_Execution]) -> None:
        for execution in list(executions):
            self._stop(execution, Stop.RELEASED)

    async def _wait(self, seconds: float) -> None:
        tasks = [execution.task for execution in self._executions.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        await asyncio.sleep(0)  # for the reports of the last ones

    def _ended(self, key: RunKey, execution: _Execution) -> None:
        """Report an execution's end. The reporter knows what is not to be said, the lease being lost."""
        del self._executions[key]
        run, task = execution.step.run, execution.task
        if not task.cancelled():
            error = task.exception()
            self._reporter.finished(outcomes.failed(run, error) if error else task.result())
        elif execution.stop is Stop.CANCELLED:
            self._reporter.finished(outcomes.cancelled(run))
        elif execution.stop is not Stop.LOST:
            self._reporter.release(key, "the worker ends")
