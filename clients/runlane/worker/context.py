"""What a task can learn and say about the run that it executes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from ..errors import RunlaneError
from ..protocol.messages import Progress, PushedRun

#: Characters of a progress message; what is longer is cut.
_MESSAGE_LENGTH: Final = 1000

_current: ContextVar[CurrentRun] = ContextVar("runlane_current_run")


class CurrentRun:
    """The run that is being executed. Safe to use from the task's own thread."""

    def __init__(self, run: PushedRun, report: Callable[[Progress], None]) -> None:
        self.id: Final = run.id
        self.attempt: Final = run.attempt
        self.task_key: Final = run.task_key
        self.headers: Final[Mapping[str, str]] = run.headers
        self.logger: Final = _RunLogger(
            logging.getLogger("runlane.run"), {"run_id": run.id, "task_key": run.task_key}
        )
        self.cancelled = False  # written by the executor
        self._report = report

    def __repr__(self) -> str:
        return f"<CurrentRun {self.task_key} {self.id}, attempt {self.attempt}>"

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Tell whoever watches how far the task is. Cheap: of what is said at once, the latest is sent."""
        text = message[:_MESSAGE_LENGTH] if message else message
        self._report(Progress(id=self.id, attempt=self.attempt, current=current, total=total, message=text))


class _RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the run in front of every message, and into the record's attributes."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        extra = dict(self.extra or {})
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return f"[{extra.get('task_key')} {extra.get('run_id')}] {msg}", kwargs


def current_run() -> CurrentRun:
    """Return the run that the calling task executes. Raises `RunlaneError` outside of one."""
    try:
        return _current.get()
    except LookupError:
        raise RunlaneError("current_run() is for tasks that a worker executes") from None


def enter(run: CurrentRun) -> None:
    """Make this the current run, for the rest of the calling task's context."""
    _current.set(run)
