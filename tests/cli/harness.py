"""The command in this process, and a broker to talk to: the real one, with a worker, on a thread of its own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pytest

from runlane import cli
from runlane.settings import Settings as ClientSettings
from runlane.tasks import task
from runlane.worker import Worker
from runlane_broker.app import create_app, running_broker
from runlane_broker.clock import SystemClock
from runlane_broker.core.core import Core
from runlane_broker.serving.listening import bind, url_of
from runlane_broker.serving.server import serving
from runlane_broker.settings import Settings
from tests.support import PATIENCE, new_database

TOKEN: Final = "a-token-of-the-command-tests"


@dataclass(frozen=True)
class Done:
    """What a command has come to."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


Run = Callable[..., Done]


def run_main(capsys: pytest.CaptureFixture[str], argv: Sequence[str]) -> Done:
    """Run the command; whatever was printed before is forgotten."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return Done(caught.value.code, out, err)


def words(text: str) -> str:
    """A help text without its line breaks, which depend on the terminal."""
    return re.sub(r"\s+", " ", text)


@task(key="cli.add")
async def add(a: int, b: int = 1) -> int:
    return a + b


@task(key="cli.fail")
async def fail(text: str) -> None:
    raise ValueError(text)


@task(key="cli.nothing")
async def nothing() -> None: ...


class Broker:
    """A broker that asks for a token, and a worker that serves the three tasks."""

    def __init__(self, folder: Path) -> None:
        self.token_file = folder / "token"
        self.token_file.write_text(TOKEN)
        self.url = ""
        self.core: Core
        self._path = new_database(folder)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="broker")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    @property
    def flags(self) -> tuple[str, ...]:
        """The options that lead here."""
        return ("--url", self.url, "--token-file", str(self.token_file))

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listener = bind("127.0.0.1", 0)
        self.url = url_of(listener)
        try:
            async with running_broker(Settings(token=TOKEN), self._path, SystemClock()) as broker:
                self.core = broker.core
                async with serving(create_app(broker.core), listener):
                    await self._work()
        finally:
            listener.close()

    async def _work(self) -> None:
        worker = Worker([add, fail, nothing], settings=ClientSettings(self.url, TOKEN))
        working = asyncio.create_task(worker.run())
        self._ready.set()
        await self._stop.wait()
        worker.stop()
        await working
