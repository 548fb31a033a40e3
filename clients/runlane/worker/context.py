"""What a task can learn and say about the run that it executes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final, NoReturn, Protocol

from ..errors import ArgumentError, RunlaneError
from ..protocol.messages import Progress, PushedRun

#: Characters of a progress message; what is longer is cut.
_MESSAGE_LENGTH: Final = 1000
#: Seconds that a run can be postponed by, at most: ten years, as everywhere on the wire.
_MAX_SNOOZE: Final = 315_360_000.0

_current: ContextVar[CurrentRun] = ContextVar("runlane_current_run")


class Snooze(BaseException):
    """Raised by `snooze` to leave the task. No `Exception`, so that a task's own handlers let it pass."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Stoppable(Protocol):
    """What knows whether a run is to stop."""

    @property
    def cancelled(self) -> bool: ...


class NoResources:
    """Stands for the resources of a worker where they cannot be had, and says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class CurrentRun:
    """The run that is being executed. Safe to use from any thread of the task's process."""

    def __init__(
        self,
        run: PushedRun,
        timeout: float | None,
        report: Callable[[Progress], None],
        state: Stoppable,
        resources: Any,
        *,
        has_checkpoints: bool,
    ) -> None:
        self.id: Final = run.id
        self.attempt: Final = run.attempt  # rises with every lease: to be used as a fencing token
        self.task_key: Final = run.task_key
        self.headers: Final[Mapping[str, str]] = run.headers
        #: UTC: when its timeout ends it, if it has one.
        self.deadline: Final = None if timeout is None else datetime.now(UTC) + timedelta(seconds=timeout)
        self._report = report
        self._state = state
        self._resources = resources
        self._may_raise = has_checkpoints  # once, as an event loop does

    def __repr__(self) -> str:
        return f"<CurrentRun {self.task_key} {self.id}, attempt {self.attempt}>"

    @cached_property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that puts the run in front of every message, and into the record's attributes."""
        extra = {"run_id": self.id, "task_key": self.task_key}
        return _RunLogger(logging.getLogger("runlane.run"), extra)

    @property
    def cancelled(self) -> bool:
        """Whether the task is to stop. A plain function is asked first, and has some seconds to end by itself."""
        return self._state.cancelled

    def checkpoint(self) -> None:
        """Leave a plain function here if it is to stop, by an `asyncio.CancelledError`: no `Exception`.

        It is raised once: what cleans up may call this again, and whoever catches it goes on. Does nothing in an
        `async def`, where the loop raises it at an `await`.
        """
        if self._may_raise and self.cancelled:
            self._may_raise = False
            raise asyncio.CancelledError(f"run {self.id} is to stop")

    @property
    def resources(self) -> Any:
        """What the worker's `lifespan` has yielded; None without one.

        Raises `RunlaneError` in a task of `pool="process"`: the worker's resources are in another process.
        """
        if isinstance(self._resources, NoResources):
            raise RunlaneError(self._resources.reason)
        return self._resources

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Tell whoever watches how far the task is. Cheap: of what is said at once, the latest is sent.

        It is a `checkpoint`, too. Raises `ArgumentError` for what is no number, or not a finite one.
        """
        if not _is_finite(current) or not (total is None or _is_finite(total)):
            raise ArgumentError(f"progress: numbers are needed, not {current!r} of {total!r}")
        # What JSON cannot say, such as half of a surrogate pair, is replaced: it is for people to read.
        text = message and str(message)[:_MESSAGE_LENGTH].encode("utf-8", "replace").decode()
        self._report(Progress(id=self.id, attempt=self.attempt, current=current, total=total, message=text))
        self.checkpoint()

    def snooze(self, seconds: float) -> NoReturn:
        """Leave the task now and have it executed again after so many seconds, from its beginning.

        Uses up no retry, and no slot meanwhile. It works by an exception, which is no `Exception`.
        """
        if not (_is_finite(seconds) and 0 <= seconds <= _MAX_SNOOZE):
            raise ArgumentError(f"a run can be snoozed for 0 to {_MAX_SNOOZE:.0f} seconds, not {seconds!r}")
        raise Snooze(seconds)


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False


class _RunLogger(logging.LoggerAdapter[logging.Logger]):
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
    """Make this the current run for the rest of the calling context."""
    _current.set(run)
