"""Processes in groups of their own: what the terminal or a supervisor says to the worker is not for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any, Final

#: For `subprocess.Popen`. (0x200 is Windows' CREATE_NEW_PROCESS_GROUP, which elsewhere has no name.)
OWN_GROUP: Final[dict[str, Any]] = {"creationflags": 0x200} if sys.platform == "win32" else {"process_group": 0}


def ask_to_end(process: subprocess.Popen[Any]) -> None:
    """Send what a program may handle: SIGTERM, or Windows' Ctrl-Break."""
    with contextlib.suppress(OSError):
        process.send_signal(signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM)


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End the process and all it has started, at once. (On Windows, the process.)"""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
