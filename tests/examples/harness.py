"""The processes of an example, started with the commands of its README."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Self

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTHON = sys.executable
#: Seconds after which what is waited for will not come.
PATIENCE = 30.0
#: What a program may have to end when told to, before it is killed. Seconds.
END_PATIENCE = 15.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Program:
    """A running process; what it writes can be waited for."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: dict[str, str], stdin: IO[str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._command = " ".join(command)
        self._written = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<Program {self._command}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has written by now."""
        return self._written

    def says(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Wait for this in the output."""
        with self._news:
            self._news.wait_for(lambda: re.search(pattern, self._written) or not self._reader.is_alive(), seconds)
            found = re.search(pattern, self._written)
        assert found is not None, f"{self} does not say {pattern!r}:\n{self._written}"
        return found

    def ends(self, code: int = 0, seconds: float = PATIENCE) -> str:
        """Wait for its end with this exit code; return all that it has written."""
        try:
            ended: int | None = self._process.wait(seconds)
            self._reader.join(seconds)
        except subprocess.TimeoutExpired:
            ended = None
        assert ended == code, f"{self} ended with {ended}:\n{self._written}"
        return self._written

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._news:
                    self._written += line
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()


class Site:
    """A broker of its own, and an example's programs. All of them end with the site."""

    def __init__(self, folder: Path, state: Path, **settings: str) -> None:
        self.folder = folder
        self._settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = state / "runlane.db"
        self._programs: list[Program] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self._programs):  # the broker, which all need, as the last
            program.stop()

    def run(self, *command: str, stdin: IO[str] | None = None, **settings: str) -> Program:
        """Start a program in the example's folder. No setting of the caller's gets through, but for these."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNLANE_")}
        environment |= {
            "RUNLANE_URL": self.url,
            "RUNLANE_CONFIG": os.devnull,
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        program = Program(command, self.folder, environment | self._settings | settings, stdin)
        self._programs.append(program)
        return program

    def broker(self) -> Program:
        """Start a broker, on the same port and database every time."""
        serve = ("serve", "--port", str(self.port), "--db", f"sqlite:///{self.database}")
        broker = self.run(PYTHON, "-m", "runlane", *serve)
        broker.says(r"listening on http://\S+,")
        return broker

    def worker(self, *options: str, tasks: str = "tasks.py") -> Program:
        """Start a worker of the example's tasks."""
        worker = self.run(PYTHON, "-m", "runlane", "worker", tasks, *options)
        worker.says("subscribed as session")
        return worker

    def main(self, *arguments: str) -> str:
        """Run `main.py` to its end; return what it prints."""
        return self.run(PYTHON, "main.py", *arguments).ends()


def until(look: Callable[[], object]) -> None:
    """Wait until this is true."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)


@contextmanager
def example(name: str, state: Path) -> Generator[Site]:
    """Have the site of an example, with a broker."""
    with Site(EXAMPLES / name, state) as site:
        site.broker()
        yield site
