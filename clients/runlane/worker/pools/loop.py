"""Where `async def` tasks execute: the event loop that the worker was started in."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from ..calling import aexecute
from ..execution import Execution
from ..mailbox import Mailbox
from ..outcomes import failed


class TaskLoop:
    """The tasks' loop. Made and closed there; the rest is called from the control side."""

    #: A task may clean up, and that may take a while; a blocked loop does not get there.
    patience = 30.0
    asks_first = False

    def __init__(self, max_payload_bytes: Callable[[], int]) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._context = contextvars.copy_context()
        self._mailbox = Mailbox()
        self._mailbox.open()
        self._tasks: dict[Execution, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<TaskLoop {len(self._tasks)} tasks>"

    def start(self, execution: Execution) -> None:
        """Have the loop begin this."""
        self._mailbox.post(self._begin, execution)

    def ask(self, execution: Execution) -> None:
        """Nothing: what runs in the loop is stopped without being asked."""

    def stop(self, execution: Execution) -> None:
        """Have the task cancelled."""
        self._mailbox.post(self._cancel, execution)

    def close(self) -> None:
        """Cancel what has not ended by itself."""
        for task in self._tasks.values():
            task.cancel()

    # --- On the loop -------------------------------------------------------------------------------------

    def _begin(self, execution: Execution) -> None:
        if not execution.claim():
            execution.tell_answer()
            return
        task = asyncio.get_running_loop().create_task(self._execute(execution), context=self._context.copy())
        self._tasks[execution] = task
        task.add_done_callback(lambda done: self._ended(execution, done))

    async def _execute(self, execution: Execution) -> None:
        report = await aexecute(execution, self._max_payload_bytes())
        del self._tasks[execution]
        execution.tell_ended(report)

    def _cancel(self, execution: Execution) -> None:
        task = self._tasks.get(execution)
        if task is not None:
            task.cancel()

    def _ended(self, execution: Execution, task: asyncio.Task[None]) -> None:
        """See to a task that has ended without a word: it was cancelled before its first step."""
        if self._tasks.pop(execution, None) is not None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            execution.tell_ended(failed(execution.run, error or RuntimeError("the task ended without a report")))
