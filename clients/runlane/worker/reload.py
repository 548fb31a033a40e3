"""`--reload`: a worker that is started again whenever a Python file has changed. For development."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

from .groups import OWN_GROUP, ask_to_end, kill_group
from .signals import SIGNALS

log: Final = logging.getLogger("runlane.reload")

#: Seconds between two looks at the files.
LOOK_SECONDS: Final = 1.0
#: Seconds that a worker may take to end when it is told to.
END_SECONDS: Final = 40.0

#: Folders that hold nobody's own code.
_SKIPPED: Final = frozenset({"__pycache__", "node_modules"})


class Reloader:
    """Runs a command, and again after each change below a folder, until told to stop.

    Signals are handed on. A command that fails is tried again after the next change.
    """

    def __init__(self, command: Sequence[str], folder: Path, look_seconds: float = LOOK_SECONDS) -> None:
        self._command = tuple(command)
        self._folder = folder
        self._look_seconds = look_seconds
        self._process: subprocess.Popen[Any] | None = None
        self._stopping = False

    def run(self) -> int:
        """Return the exit code of the command's last run."""
        with self._handing_on_signals():
            while True:
                files = python_files(self._folder)
                process = self._process = subprocess.Popen(self._command, **OWN_GROUP)  # noqa: S603  (ours)
                if self._stopping:  # told before there was anything to hand it on to
                    ask_to_end(process)
                changed = self._next_change(process, files)
                if changed is None:
                    return process.wait()
                log.info("%s has changed: starting again", changed)
                _end(process)

    def _next_change(self, process: subprocess.Popen[Any], files: dict[Path, int]) -> Path | None:
        """Return what has changed; None where the command has ended, and is not to be repeated."""
        while True:
            before = process.returncode
            self._pause(process)
            code = process.returncode
            if code == 0 or (code is not None and self._stopping):
                return None
            if code is not None and before is None:
                log.error("the worker has ended with %d; it will be started again after a change", code)
            now = python_files(self._folder)
            if now != files and not self._stopping:
                return min(path for path, _ in files.items() ^ now.items())

    def _pause(self, process: subprocess.Popen[Any]) -> None:
        """Wait until it is time to look, or the process ends."""
        if process.returncode is not None:
            time.sleep(self._look_seconds)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._look_seconds)

    @contextlib.contextmanager
    def _handing_on_signals(self) -> Generator[None]:
        def hand_on(*_: Any) -> None:
            self._stopping = True
            if self._process is not None:
                ask_to_end(self._process)

        before = [signal.signal(number, hand_on) for number in SIGNALS]
        try:
            yield
        finally:
            for number, handler in zip(SIGNALS, before, strict=True):
                signal.signal(number, handler)


def python_files(folder: Path) -> dict[Path, int]:
    """Return when each .py file below the folder was changed, leaving out what is hidden or installed."""
    found: dict[Path, int] = {}
    for parent, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        for name in files:
            if name.endswith(".py"):
                path = Path(parent, name)
                with contextlib.suppress(OSError):  # it is gone again
                    found[path] = path.stat().st_mtime_ns
    return found


def _end(process: subprocess.Popen[Any]) -> None:
    ask_to_end(process)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        kill_group(process)
        process.wait()
