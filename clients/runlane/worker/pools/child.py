"""The program of a process that executes tasks: `python -m runlane.worker.pools.child`, started by a worker alone.

It speaks with the worker over its standard input and output. What tasks print goes to standard error instead. It
ends when its input does, be the worker done with it or dead.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any, Final

from ...protocol.messages import Frame, ReleasedRun
from ...tasks import Task
from ...waits import Waits
from ..calling import execute
from ..context import NoResources
from ..discovery import load_task
from ..progress import LatestProgress
from ..signals import SIGNALS
from .pipe import (
    TO_PROCESS,
    Ask,
    Begun,
    Broken,
    Channel,
    Execute,
    Logged,
    Ready,
    Setup,
    Snoozed,
    ToProcess,
    Waiting,
)

#: Seconds within which progress is gathered before it is sent.
_PROGRESS_SECONDS: Final = 0.1
#: Seconds that the interpreter's own end may take, once there is no worker any more.
_END_SECONDS: Final = 2.0
#: Characters of a log message.
_MESSAGE_LENGTH: Final = 64_000
#: Linux: have the kernel kill this process with its parent, though code in C holds the interpreter's lock.
_PR_SET_PDEATHSIG: Final = 1

_NO_RESOURCES: Final = NoResources(
    'a task of pool="process" has no resources: those of the worker are in another process'
)


class _Call:
    """One call of a task, as `calling` sees it."""

    def __init__(self, frame: Execute, task: Task[..., Any], process: Process) -> None:
        self.run = frame.run
        self.task = task
        self.timeout = frame.timeout
        self.max_payload_bytes = frame.max_payload_bytes
        self.resources = _NO_RESOURCES
        self.cancelled = False  # written by the reader
        self.waits: Waits | None = None
        self._process = process
        self._progress: LatestProgress | None = None
        self._sending = threading.Lock()  # so that nothing older is sent after the latest

    def tell_begun(self) -> None:
        """Tell the worker that the task is being called."""
        self._process.send(Begun())

    def tell_progress(self, progress: LatestProgress, /) -> None:
        """Tell the worker soon how far it is: of what is said until then, the latest."""
        self._progress = progress
        timer = threading.Timer(_PROGRESS_SECONDS, self.send_progress)
        timer.daemon = True
        timer.start()

    def tell_waiting(self, waits: bool, /) -> None:
        """Tell the worker that the task waits for another run, or does so no more."""
        self._process.send(Waiting(id=self.run.id, attempt=self.run.attempt, waits=waits))

    def send_progress(self) -> None:
        """Tell the worker what it has not heard of yet."""
        with self._sending:
            frame = self._progress.take() if self._progress is not None else None
            if frame is not None and self._process.executes(self):
                self._process.send(frame)


class Process:
    """Imports the tasks, and executes one run after another: tasks on the main thread, reading on another."""

    def __init__(self, channel: Channel[ToProcess]) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._tasks: dict[str, Task[..., Any]] = {}
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()  # None: the end
        self._call: _Call | None = None  # from when it is read until its report is sent

    def main(self) -> None:
        """Work until the worker hangs up."""
        setup = self._channel.receive()
        assert isinstance(setup, Setup), "it comes first"
        _die_with_parent()
        sys.path[:], sys.argv[:] = setup.path, setup.argv
        logging.basicConfig(level=setup.log_level, handlers=[_Forwarder(self._channel)])
        threading.Thread(target=self._read, name="runlane reader", daemon=True).start()
        try:
            self._tasks = {source.key: load_task(source) for source in setup.sources}
        except BaseException as exc:
            self._channel.send(Broken(reason=_reason(exc)))
            return
        self._channel.send(Ready())
        while (call := self._calls.get()) is not None:
            self._execute(call)

    def executes(self, call: _Call) -> bool:
        """Say whether this is what is executed now."""
        return self._call is call

    def send(self, frame: Frame) -> None:
        """Tell the worker. Where it is gone, the reader knows it, too."""
        with contextlib.suppress(OSError):
            self._channel.send(frame)

    def _execute(self, call: _Call) -> None:
        report = contextvars.copy_context().run(execute, call, call.max_payload_bytes)
        if os.getpid() != self._pid:  # the task has forked, and this is the child, which has nothing to report
            os._exit(0)
        call.send_progress()
        self._call = None
        self.send(Snoozed(run=report) if isinstance(report, ReleasedRun) else report)

    def _read(self) -> None:
        try:
            while True:
                match self._channel.receive():
                    case Execute() as frame:
                        self._call = _Call(frame, self._tasks[frame.run.task_key], self)
                        self._calls.put(self._call)
                    case Ask() as frame:
                        call = self._call
                        if call is not None and (call.run.id, call.run.attempt) == (frame.id, frame.attempt):
                            call.cancelled = True
                            if call.waits is not None:
                                call.waits.interrupt()
                    case _:
                        pass
        except (OSError, EOFError):
            self._hung_up()

    def _hung_up(self) -> None:
        if self._call is not None:
            os._exit(1)  # nobody will hear of what the task does
        self._calls.put(None)
        time.sleep(_END_SECONDS)
        os._exit(0)


class _Forwarder(logging.Handler):
    """Sends log records to the worker."""

    def __init__(self, channel: Channel[ToProcess]) -> None:
        super().__init__()
        self._channel = channel
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        extra = {name: str(value) for name in ("run_id", "task_key") if (value := getattr(record, name, None))}
        try:
            exception = self._formatter.formatException(record.exc_info) if record.exc_info else None
            self._channel.send(
                Logged(
                    name=record.name,
                    level=record.levelno,
                    created=record.created,
                    process=record.process or os.getpid(),
                    message=_clean(record.getMessage()),
                    exception=exception and _clean(exception),
                    extra=extra,
                )
            )
        except Exception:
            self.handleError(record)


def _clean(text: str) -> str:
    """Return what can be sent as UTF-8, cut to length."""
    return text[:_MESSAGE_LENGTH].encode("utf-8", "replace").decode()


def _reason(error: BaseException) -> str:
    """Return the error in one line, and where it comes from below."""
    lines = traceback.format_exception(error)
    return _clean(f"{type(error).__name__}: {error}\n{''.join(lines)}")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_channel() -> Channel[ToProcess]:
    """Take standard input and output for the worker alone; leave what tasks may use without harm."""
    reader, writer = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(reader, writer, TO_PROCESS)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing about a signal."""


def main() -> None:
    """Run the program."""
    # The worker says when it is over: whoever tells a whole group to end tells the worker, too, which then drains.
    # (Handlers, not SIG_IGN, which programs that a task starts would inherit.)
    for number in SIGNALS:
        signal.signal(number, _ignore)
    Process(_own_channel()).main()


if __name__ == "__main__":
    main()
