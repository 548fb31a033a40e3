"""Makes Linux look like another system, as far as Python shows it: on PYTHONPATH, with FOREIGN=win32 or darwin.

The standard library is that of Linux and has to come first, with all that it picks by platform. What is imported
from then on, Runlane and what that needs, finds the other system: its names, and neither modules nor functions
that it doesn't have. Windows' way of ending a process, Ctrl-Break, is another signal here.
"""

import asyncio
import asyncio.subprocess
import concurrent.futures.thread
import ctypes
import http.client
import importlib.metadata
import logging.handlers
import multiprocessing
import os
import pathlib
import platform
import random
import select
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
import uuid
import zoneinfo
from typing import Any

__all__ = (
    "asyncio", "concurrent", "ctypes", "http", "importlib", "logging", "multiprocessing", "platform", "random",
    "shutil", "ssl", "tempfile", "urllib", "uuid", "zoneinfo",
)  # fmt: skip

SYSTEM = os.environ["FOREIGN"]

#: What only Linux has.
LINUX = {
    os: """
        sched_getaffinity sched_setaffinity sched_getscheduler sched_setscheduler sched_getparam
        sched_setparam posix_fadvise posix_fallocate pipe2 eventfd memfd_create pidfd_open splice
        copy_file_range getrandom setns unshare getxattr setxattr listxattr removexattr O_TMPFILE O_DIRECT
        O_PATH getresuid getresgid
    """,
    signal: """
        sigtimedwait sigwaitinfo SIGRTMIN SIGRTMAX SIGPWR SIGSTKFLT SIGPOLL SIGCLD pidfd_send_signal
    """,
    select: """
        epoll
    """,
    socket: """
        SOCK_CLOEXEC SOCK_NONBLOCK AF_NETLINK AF_PACKET AF_VSOCK SO_PASSCRED SO_PEERCRED SO_BINDTODEVICE
        TCP_USER_TIMEOUT TCP_QUICKACK MSG_NOSIGNAL
    """,
}
#: What only POSIX has.
POSIX = {
    os: """
        fork forkpty register_at_fork openpty setsid getsid setpgid getpgid getpgrp setpgrp killpg tcgetpgrp
        tcsetpgrp getuid geteuid getgid getegid getgroups setuid seteuid setgid setegid setgroups initgroups
        setreuid setregid chown fchown lchown fchdir fchmod chroot mkfifo mknod nice getpriority setpriority
        getloadavg uname sysconf confstr pathconf fpathconf statvfs fstatvfs ctermid ttyname sendfile
        posix_spawn posix_spawnp pread pwrite preadv pwritev readv writev lockf sync fdatasync wait wait3
        wait4 waitid sched_yield WNOHANG WUNTRACED WCONTINUED WEXITSTATUS WIFEXITED WIFSIGNALED WIFSTOPPED
        WSTOPSIG WTERMSIG O_NONBLOCK O_CLOEXEC O_NOFOLLOW O_DIRECTORY O_SYNC O_DSYNC O_NOCTTY O_NDELAY
    """,
    signal: """
        SIGHUP SIGKILL SIGQUIT SIGSTOP SIGTSTP SIGCONT SIGCHLD SIGPIPE SIGALRM SIGUSR1 SIGUSR2 SIGWINCH
        SIGTTIN SIGTTOU alarm pause setitimer getitimer pthread_kill pthread_sigmask sigpending sigwait
        siginterrupt
    """,
    select: """
        poll PIPE_BUF
    """,
    socket: """
        SO_REUSEPORT
    """,
}
MODULES = "fcntl pwd grp resource termios tty pty posix syslog readline uvloop"

#: Windows' creation flags, and what they mean to `subprocess` here.
NEW_PROCESS_GROUP = 0x200
KILL, CTRL_BREAK = signal.SIGKILL, signal.SIGUSR2


class Popen(subprocess.Popen[Any]):
    """Takes Windows' arguments, and not POSIX' own."""

    def __init__(self, args: Any, **options: Any) -> None:
        posix = {"process_group", "start_new_session", "preexec_fn", "user", "group", "umask", "pass_fds"}
        assert not posix & options.keys(), f"not on Windows: {posix & options.keys()}"
        flags = options.pop("creationflags", 0)
        assert flags in (0, NEW_PROCESS_GROUP)
        super().__init__(args, process_group=0 if flags else None, **options)

    def send_signal(self, sig: int) -> None:
        """Send what can be sent there."""
        assert sig in (signal.SIGTERM, CTRL_BREAK), f"not on Windows: {sig}"
        super().send_signal(sig)

    def terminate(self) -> None:
        """End the process at once."""
        os.kill(self.pid, KILL)

    kill = terminate


def missing(*_: object, **__: object) -> None:
    raise NotImplementedError


def like_windows() -> None:
    """Be Windows. Its event loop, too, is poorer."""
    names = pathlib.Path.__new__.__globals__
    names["WindowsPath"] = pathlib.PosixPath  # `Path` makes the one or the other by `os.name`
    os.name = "nt"
    for method in ("add_signal_handler", "remove_signal_handler", "add_reader", "add_writer"):
        setattr(asyncio.SelectorEventLoop, method, missing)
    subprocess.Popen = Popen  # type: ignore[misc]
    ssl.enum_certificates = lambda _store: ()  # type: ignore[attr-defined]
    remove(POSIX)
    signal.SIGBREAK = signal.CTRL_BREAK_EVENT = CTRL_BREAK  # type: ignore[attr-defined]
    for name in MODULES.split():
        sys.modules[name] = None  # type: ignore[assignment]


def remove(names: dict[Any, str]) -> None:
    """Take attributes away from modules, where this Python has them."""
    for module, attributes in names.items():
        for name in attributes.split():
            vars(module).pop(name, None)


selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[misc, assignment]
asyncio.new_event_loop().close()  # its kind is picked now, for Linux
sys.platform = SYSTEM
os.process_cpu_count = os.cpu_count  # the one of Linux asks for the affinity
remove(LINUX)
if SYSTEM == "win32":
    like_windows()
