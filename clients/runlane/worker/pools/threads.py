"""Where plain functions execute: threads of the worker's own, so that nobody else's work fills them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..calling import execute
from ..execution import Execution


class Threads:
    """A thread for each slot."""

    #: A thread cannot be stopped: the run is reported without it, and the slot stays taken until it is done.
    patience = 0.0
    asks_first = True

    def __init__(self, executor: ThreadPoolExecutor, max_payload_bytes: Callable[[], int]) -> None:
        self._executor = executor
        self._max_payload_bytes = max_payload_bytes
        self._context = contextvars.copy_context()

    def __repr__(self) -> str:
        return "<Threads>"

    def start(self, execution: Execution) -> None:
        """Have a thread execute this."""
        self._executor.submit(self._context.copy().run, self._execute, execution)

    def ask(self, execution: Execution) -> None:
        """Let it wait for no other run; else the function looks at `current_run().cancelled`, or does not."""
        if execution.waits is not None:
            execution.waits.interrupt()

    def stop(self, execution: Execution) -> None:
        """Nothing: threads cannot be stopped."""

    def _execute(self, execution: Execution) -> None:
        if execution.claim():
            execution.tell_ended(execute(execution, self._max_payload_bytes()))
        else:
            execution.tell_answer()
