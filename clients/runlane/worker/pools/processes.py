"""Where tasks of `pool="process"` execute: a process for each slot that needs one, kept for the next run.

One process never executes two runs at once, so that killing it (a timeout, a cancel) hits no neighbour. Each is a
fresh interpreter that imports the tasks' modules by name, on every system: nothing is forked, and the program's
main module is not run again. A thread of the worker waits for each; the processes themselves end with the worker,
however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ...errors import RunlaneError
from ...protocol.messages import Finished, Progress
from ..discovery import TaskSource
from ..execution import Execution
from ..groups import OWN_GROUP, kill_group
from ..outcomes import Report, failed
from ..progress import LatestProgress
from .pipe import (
    FROM_PROCESS,
    Ask,
    Begun,
    Broken,
    Channel,
    Execute,
    FromProcess,
    Logged,
    Ready,
    Setup,
    Snoozed,
    Waiting,
)

log: Final = logging.getLogger("runlane.worker")

#: Seconds that a process may take to import the tasks.
START_SECONDS: Final = 60.0
#: Seconds that an idle process may take to end by itself when it is told to.
END_SECONDS: Final = 1.0
#: Seconds between two looks whether a process lives whose pipe says nothing: a child of its own may hold that.
_LOOK_SECONDS: Final = 1.0


class ProcessFailed(RunlaneError):
    """A process of the worker could not begin, or has ended before its task: by a signal, by `os._exit` …"""


class Processes:
    """The pool. Its threads are those of the worker's slots, so that there are never more processes."""

    #: Killing takes no time; this is for the thread that hears of it.
    patience = 5.0
    asks_first = True

    def __init__(
        self, sources: Sequence[TaskSource], executor: ThreadPoolExecutor, max_payload_bytes: Callable[[], int]
    ) -> None:
        self._sources = tuple(sources)
        self._executor = executor
        self._max_payload_bytes = max_payload_bytes
        self._lock = threading.Lock()
        self._idle: list[Child] = []  # the last one used is used next
        self._busy: dict[Execution, Child] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<Processes {len(self._busy)} busy, {len(self._idle)} idle>"

    def open(self) -> None:
        """Start a first process, to see that the tasks can be imported there. Waits. Raises `ProcessFailed`."""
        self._keep(self._take())

    def close(self) -> None:
        """End all processes. Waits, but not for tasks."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for child in self._busy.values():
                child.kill()
        for child in idle:
            child.hang_up()
        for child in idle:
            child.end(END_SECONDS)

    # --- What the control side calls ---------------------------------------------------------------------

    def start(self, execution: Execution) -> None:
        """Have a process execute this, and a thread wait for it."""
        self._executor.submit(self._execute, execution)

    def ask(self, execution: Execution) -> None:
        """Tell the process, which sets `current_run().cancelled`."""
        with self._lock:
            child = self._busy.get(execution)
        if child is not None:  # a pipe may be full, and the control side never waits
            threading.Thread(target=child.ask, args=(execution,), name="runlane ask", daemon=True).start()

    def stop(self, execution: Execution) -> None:
        """Kill the process."""
        with self._lock:
            child = self._busy.get(execution)
            if child is not None:
                child.kill()

    # --- On a thread -------------------------------------------------------------------------------------

    def _execute(self, execution: Execution) -> None:
        if not execution.claim():
            execution.tell_answer()
            return
        execution.tell_taken()
        try:
            report = self._in_some_process(execution)
        except Exception as exc:
            if execution.stop is None:
                log.warning("run %s of %s failed: %s", execution.run.id, execution.run.task_key, exc)
            report = failed(execution.run, exc)
        execution.tell_ended(report)

    def _in_some_process(self, execution: Execution) -> Report:
        """Execute the run; once more where the process turns out to be dead before it has called the task."""
        child = self._take()
        try:
            return self._in(child, execution)
        except ProcessFailed:
            if child.has_begun or execution.stop is not None:
                raise
        return self._in(self._take(), execution)

    def _in(self, child: Child, execution: Execution) -> Report:
        with self._lock:
            self._busy[execution] = child
            if execution.stop is not None or self._closed:  # and whoever stops it from now on finds the process
                child.kill()
        try:
            report = child.execute(execution, self._max_payload_bytes())
        except ProcessFailed:
            self._forget(execution)
            raise
        except BaseException:
            self._forget(execution)
            child.end(0)
            raise
        self._forget(execution)
        self._keep(child)
        return report

    def _take(self) -> Child:
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                return Child(self._setup())
            if child.is_alive:
                return child
            child.end(0)

    def _setup(self) -> Setup:
        level = logging.getLogger().getEffectiveLevel()
        return Setup(path=tuple(sys.path), argv=tuple(sys.argv), sources=self._sources, log_level=level)

    def _forget(self, execution: Execution) -> None:
        with self._lock:
            del self._busy[execution]

    def _keep(self, child: Child) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.hang_up()
        child.end(END_SECONDS)


class Child:
    """One process, as its worker sees it. Made when it is ready; raises `ProcessFailed` where that fails."""

    def __init__(self, setup: Setup) -> None:
        self.has_begun = False  # it has called the task that it executes, or executed last
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runlane.worker.pools.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **OWN_GROUP,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._channel: Channel[FromProcess] = Channel(
            self._process.stdout.fileno(), self._process.stdin.fileno(), FROM_PROCESS
        )
        self._start(setup)

    def __repr__(self) -> str:
        return f"<Child {self._process.pid} {'alive' if self.is_alive else 'dead'}>"

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def execute(self, execution: Execution, max_payload_bytes: int) -> Report:
        """Have the process execute this; return its report. Raises `ProcessFailed` where it ends before."""
        self.has_begun = False
        latest = LatestProgress(execution.tell_progress)
        try:
            self._channel.send(
                Execute(run=execution.run, timeout=execution.timeout, max_payload_bytes=max_payload_bytes)
            )
            if execution.cancelled:
                self.ask(execution)
            while True:
                match self._receive():
                    case Begun():
                        self.has_begun = True
                        execution.tell_begun()
                    case Progress() as frame if (frame.id, frame.attempt) == execution.key:
                        latest.put(frame)  # (a thread that an earlier run left behind may still say something)
                    case Waiting() as frame if (frame.id, frame.attempt) == execution.key:
                        execution.tell_waiting(frame.waits)
                    case Finished() as frame:
                        return frame
                    case Snoozed(run=run):
                        return run
                    case _:
                        pass
        except (OSError, EOFError) as exc:
            raise self._failure("its task had ended") from exc

    def ask(self, execution: Execution) -> None:
        """Let the task know that it is to stop. May wait for the pipe."""
        run_id, attempt = execution.key
        with contextlib.suppress(OSError):  # it is dead: whoever waits for it hears of that
            self._channel.send(Ask(id=run_id, attempt=attempt))

    def kill(self) -> None:
        """End the process, and what it has started, at once. Never waits."""
        if self._process.returncode is None:
            kill_group(self._process)

    def hang_up(self) -> None:
        """Let an idle process end by itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def end(self, seconds: float) -> int:
        """Wait at most so long for the end, then kill; return the exit code, and let go of everything."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        for file in (self._process.stdin, self._process.stdout):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        return code

    def _start(self, setup: Setup) -> None:
        patience = threading.Timer(START_SECONDS, self.kill)
        patience.daemon = True
        patience.start()
        try:
            self._channel.send(setup)
            answer = self._receive()
            while isinstance(answer, Logged):
                answer = self._receive()
        except (OSError, EOFError) as exc:
            raise self._failure(f"it had imported the tasks (in {START_SECONDS:g} s at most)") from exc
        finally:
            patience.cancel()
        if not isinstance(answer, Ready):
            self.end(END_SECONDS)
            reason = answer.reason if isinstance(answer, Broken) else f"it says {answer!r}"
            raise ProcessFailed(f'a process for tasks of pool="process" cannot begin: {reason}')

    def _receive(self) -> FromProcess:
        frame = self._channel.receive(self._wait)
        if isinstance(frame, Logged):
            _log(frame)
        return frame

    def _wait(self, reader: int) -> None:
        """Wait until there is something to be read. Raises `EOFError` once the process is dead."""
        if sys.platform == "win32":  # where only sockets can be polled, the read itself waits
            return
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        while not poll.poll(_LOOK_SECONDS * 1000):
            if not self.is_alive:
                kill_group(self._process)  # what it has left behind
                raise EOFError

    def _failure(self, before: str) -> ProcessFailed:
        code = self.end(END_SECONDS)
        how = f"exited with code {code}" if code >= 0 else f"was ended by {_name_of(-code)}"
        return ProcessFailed(f"the process {how} before {before}")


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _log(frame: Logged) -> None:
    """Hand a record of a process to the worker's own handlers."""
    logger = logging.getLogger(frame.name)
    if logger.isEnabledFor(frame.level):
        fields = {
            "name": frame.name,
            "levelno": frame.level,
            "levelname": logging.getLevelName(frame.level),
            "msg": frame.message,
            "created": frame.created,
            "msecs": int(frame.created % 1 * 1000),
            "process": frame.process,
            "exc_text": frame.exception,
        }
        logger.handle(logging.makeLogRecord({**frame.extra, **fields}))
