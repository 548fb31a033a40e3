"""What is pushed is executed: who holds a slot, what is stopped and why, and how each run is reported."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ..protocol.messages import Finished, PushedRun, ReleasedRun, Started
from ..tasks import Task
from . import outcomes
from .execution import Execution, Pool, RunKey, Stop
from .fence import Fence, Lease
from .outcomes import Report
from .progress import LatestProgress
from .reporter import Reporter
from .slots import Slots
from .stalls import Stalls
from .standstill import Standstill

log: Final = logging.getLogger("runlane.worker")

#: Seconds after which a run of a task that this worker does not have is offered again, to another.
UNKNOWN_TASK_DELAY: Final = 5.0
#: Seconds within which a pushed run begins, or it is given back: less than the broker's patience with it.
BEGIN_SECONDS: Final = 1.0
#: Seconds that a task which is stopped may take to clean up, when the worker itself must end.
CLEANUP_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Work:
    """What a worker executes, and where."""

    tasks: Mapping[str, Task[..., Any]]
    pool_of: Callable[[Task[..., Any]], Pool]
    resources: Any
    fence: bool  # every task, whatever it says itself


class Executor:
    """Holds what is being executed, stops it when told to, and reports how it ended.

    It lives on the control side's loop. Pools call tasks, elsewhere, and tell; see `execution`. An execution is
    *settled* when its run is reported. That comes with its end, but for code that does not stop: there the
    report comes first, and the slot stays taken until the end.
    """

    def __init__(
        self, work: Work, reporter: Reporter, slots: Slots, lease: Lease, post: Callable[..., None]
    ) -> None:
        self._work = work
        self._reporter = reporter
        self._slots = slots
        self._post = post
        self._fence = Fence(lease, self._on_fenced)
        self._standstill = Standstill(slots)
        self._stalls = Stalls(self._running_keys)
        self._executions: dict[RunKey, Execution] = {}
        self._not_begun: dict[RunKey, Execution] = {}  # oldest first
        self._not_begun_timer: asyncio.TimerHandle | None = None
        self._waiting: deque[Execution] = deque()  # for a slot
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Executor {len(self)} runs, {len(self._not_begun)} not begun>"

    def __len__(self) -> int:
        return len(self._executions)

    # --- What the session calls --------------------------------------------------------------------------

    def start(self, runs: Sequence[PushedRun]) -> None:
        """Execute these runs."""
        for run in runs:
            task = self._work.tasks.get(run.task_key) if run.kind == "task" else None
            if self._draining:
                self._reporter.release(outcomes.released(run, "the worker drains"))
            elif task is None:
                log.warning("this worker has no task %s; giving run %s back", run.task_key, run.id)
                self._reporter.release(outcomes.released(run, f"no task {run.task_key} here", UNKNOWN_TASK_DELAY))
            else:
                self._start(run, task)

    def cancel(self, key: RunKey, grace_seconds: float) -> None:
        """Stop a run; a plain function has the grace to see `current_run().cancelled` and end by itself.

        Whatever it does, it is not reported as cancelled while its code goes on.
        """
        execution = self._executions.get(key)
        if execution is None or self._take_back(execution, Stop.CANCELLED):
            return
        if execution.timer is not None and (execution.stop is Stop.TIMED_OUT or not execution.cancelled):
            execution.timer.cancel()  # of its timeout
        if execution.cancelled:
            return
        self._ask(execution)
        if execution.pool.asks_first:
            self._later(execution, grace_seconds, lambda: self._stop(execution, Stop.CANCELLED))
        else:
            self._stop(execution, Stop.CANCELLED)

    def lose(self, key: RunKey) -> None:
        """Stop a run whose lease is lost."""
        execution = self._executions.get(key)
        if execution is not None:
            log.warning("lost the lease of run %s", key[0])
            self._stop(execution, Stop.LOST)

    def answered(self) -> None:
        """The broker has answered: leases are safe for a while."""
        for execution in self._fence.answered():
            self._with_slot(execution)

    # --- What the worker calls ---------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and wait at most so long for what runs."""
        self._close()
        await self._wait(seconds)

    async def abort(self) -> None:
        """Stop and give back whatever has not ended."""
        self._close()
        for execution in list(self._executions.values()):
            self._stop(execution, Stop.RELEASED, CLEANUP_SECONDS)
        await self._wait(2 * CLEANUP_SECONDS)

    def _close(self) -> None:
        self._draining = True
        self._slots.close()
        for execution in list(self._not_begun.values()):
            self._take_back(execution, Stop.RELEASED, "the worker drains")

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    # --- What pools tell ---------------------------------------------------------------------------------

    def on_taken(self, execution: Execution) -> None:
        """Report the start, once."""
        self._not_begun.pop(execution.key, None)
        if not execution.taken:
            execution.taken = True
            run_id, attempt = execution.key
            self._reporter.started(Started(id=run_id, attempt=attempt, at=datetime.now(UTC)))

    def on_begun(self, execution: Execution) -> None:
        """Let the run's time begin."""
        self.on_taken(execution)
        execution.begun_at = time.monotonic()
        if execution.timeout is not None and not execution.cancelled:
            self._later(execution, execution.timeout, lambda: self._on_timeout(execution))

    def on_progress(self, execution: Execution, progress: LatestProgress) -> None:
        """Report it."""
        self._reporter.progress(execution.key, progress)

    def on_waiting(self, execution: Execution, waits: bool) -> None:
        """Mark a slot that only another run can free."""
        if not waits:
            self._standstill.remove(execution.key)
        elif self._executions.get(execution.key) is execution:
            self._standstill.add(execution)

    def on_ended(self, execution: Execution, report: Report) -> None:
        """Report the run, where that has not been done before, and free its slot."""
        if self._executions.get(execution.key) is execution:
            self._slots.give_back()
            self._settle(execution, report)
        else:
            self._slots.unstick()
        self._refill()

    def on_answer(self) -> None:
        """Take runs again: nothing is blocked any more."""
        self._slots.pause(paused=False)

    # --- Beginning ---------------------------------------------------------------------------------------

    def _start(self, run: PushedRun, task: Task[..., Any]) -> None:
        work = self._work
        execution = Execution(run, task, work.pool_of(task), work.resources, self, self._post)
        self._executions[execution.key] = self._not_begun[execution.key] = execution
        self._idle.clear()
        self._stalls.watch()
        if self._not_begun_timer is None:
            self._check_again_in(BEGIN_SECONDS)
        if not (work.fence or task.fence) or self._fence.admit(execution):
            self._with_slot(execution)

    def _with_slot(self, execution: Execution) -> None:
        if self._slots.take():
            execution.holds_slot = True
            execution.pool.start(execution)
        else:
            self._waiting.append(execution)

    def _refill(self) -> None:
        while self._waiting and self._slots.take():
            execution = self._waiting.popleft()
            if execution.key in self._not_begun:
                execution.holds_slot = True
                execution.pool.start(execution)
            else:  # given back meanwhile
                self._slots.give_back()

    def _check_again_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._not_begun_timer = loop.call_later(seconds, self._check_not_begun)

    def _check_not_begun(self) -> None:
        """Give back what has not begun in time: somebody else may be able to.

        Where a slot is held and nothing comes of it, some task blocks the others: their event loop, or the whole
        interpreter. Until that is over no run is taken at all.
        """
        self._not_begun_timer = None
        now = time.monotonic()
        for execution in list(self._not_begun.values()):
            wait = execution.since + BEGIN_SECONDS - now
            if wait > 0:
                self._check_again_in(wait)
                return
            if self._take_back(execution, Stop.RELEASED, "no place to begin"):
                self._note_blocked(execution)
            else:
                del self._not_begun[execution.key]  # it has begun just now

    def _running_keys(self) -> list[str]:
        return [execution.run.task_key for execution in self._executions.values()]

    def _note_blocked(self, execution: Execution) -> None:
        if execution.holds_slot:
            key = execution.run.task_key
            log.warning("a run of %s could not begin for %g s: some task blocks the others", key, BEGIN_SECONDS)
            self._slots.pause(paused=True)

    # --- Stopping ----------------------------------------------------------------------------------------

    def _on_timeout(self, execution: Execution) -> None:
        run = execution.run
        log.warning("run %s of %s ran longer than %g s", run.id, run.task_key, execution.timeout)
        self._stop(execution, Stop.TIMED_OUT)

    def _on_fenced(self, execution: Execution) -> None:
        log.warning("run %s is stopped: the broker does not answer, its lease may end", execution.run.id)
        self._stop(execution, Stop.RELEASED, reason="the broker did not answer")

    def _ask(self, execution: Execution) -> None:
        if not execution.cancelled:
            execution.cancelled = True
            execution.pool.ask(execution)

    def _stop(
        self, execution: Execution, why: Stop, patience: float | None = None, reason: str = "the worker ends"
    ) -> None:
        if self._executions.get(execution.key) is not execution or self._take_back(execution, why, reason):
            return
        first = execution.stop is None
        if first or why is Stop.LOST:
            execution.stop, execution.reason = why, reason
        self._ask(execution)
        if first:
            execution.pool.stop(execution)
        if why is Stop.CANCELLED:
            return
        seconds = execution.pool.patience if patience is None else patience
        if seconds > 0:
            self._later(execution, seconds, lambda: self._settle_without(execution))
        else:
            self._settle_without(execution)

    def _take_back(self, execution: Execution, why: Stop, reason: str = "") -> bool:
        """Settle a run whose pool has not begun it. Say whether that was so."""
        if not execution.claim():
            return False
        execution.stop, execution.reason = why, reason
        if execution.holds_slot:
            self._slots.give_back()
        self._settle(execution, None)
        self._refill()
        return True

    def _settle_without(self, execution: Execution) -> None:
        """Report a run although its code goes on, and leave the slot to that."""
        self._slots.stick()
        self._settle(execution, None)

    def _later(self, execution: Execution, seconds: float, call: Callable[[], None]) -> None:
        """Have this called, unless the execution is settled first or something else is to be called."""
        if execution.timer is not None:
            execution.timer.cancel()
        execution.timer = asyncio.get_running_loop().call_later(seconds, call)

    # --- Settling ----------------------------------------------------------------------------------------

    def _settle(self, execution: Execution, report: Report | None) -> None:
        """Forget the execution and report its run. (The reporter says nothing of a lease that is lost.)"""
        if execution.timer is not None:
            execution.timer.cancel()
        del self._executions[execution.key]
        self._not_begun.pop(execution.key, None)
        self._fence.remove(execution.key)
        self._standstill.remove(execution.key)
        if not self._executions:
            self._idle.set()
        final = _final(execution, report)
        if isinstance(final, Finished):
            self._reporter.finished(final)
        elif final is not None:
            self._reporter.release(final)
        _log(execution, final)


def _final(execution: Execution, report: Report | None) -> Report | None:
    """Return what is said of a run, from what its pool has said (None: nothing yet) and why it was stopped."""
    run = execution.run
    if isinstance(report, Finished) and report.state.type == "COMPLETED":
        return report
    match execution.stop:
        case None:
            return report
        case Stop.CANCELLED:
            return outcomes.cancelled(run)
        case Stop.TIMED_OUT:
            return outcomes.timed_out(run, execution.timeout or 0.0)
        case Stop.RELEASED:
            return outcomes.released(run, execution.reason)
        case Stop.LOST:
            return None


def _log(execution: Execution, final: Report | None) -> None:
    run = execution.run
    if isinstance(final, Finished):
        seconds = time.monotonic() - (execution.begun_at or execution.since)
        what = f"attempt {run.attempt} {final.state.type}"
        log.info("run %s of %s: %s in %.3f s", run.id, run.task_key, what, seconds)
    elif isinstance(final, ReleasedRun):
        log.info("run %s of %s is given back: %s", run.id, run.task_key, final.reason)
