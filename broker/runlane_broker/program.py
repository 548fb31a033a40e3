"""A broker as a program: from its settings to its end."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from runlane import __version__

from .app import Broker, create_app, running_broker
from .clock import SystemClock
from .serving.listening import url_of
from .serving.server import serving, stop_signals
from .settings import Settings
from .storage.location import sqlite_path
from .storage.lock import FileLock
from .storage.schema import upgrade

logger = logging.getLogger("runlane")

#: What is said at the end has so long to leave before the connections are closed.
_PARTING_SECONDS = 0.05


def run_broker(settings: Settings, listener: socket.socket) -> None:
    """Run a broker until it is told to stop. Raises `ConfigurationError`, `StartupError`, `StoreUnavailable`."""
    _run(_serve(settings, listener))


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415  (where there is one)
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


async def _serve(settings: Settings, listener: socket.socket) -> None:
    path = sqlite_path(settings.db)
    with ExitStack() as stack:
        stack.callback(FileLock(path).release)
        await asyncio.to_thread(upgrade, path)
        async with running_broker(settings, path, SystemClock()) as broker:
            stop = asyncio.Event()
            with stop_signals(stop.set):
                async with serving(create_app(broker.core), listener):
                    calm_garbage_collector()
                    _announce(settings, broker, url_of(listener))
                    await stop.wait()
                    await _drain(broker, settings.timers.drain)


def calm_garbage_collector() -> None:
    """Look for cycles in small steps, and never among what lives as long as the process: a quarter of the CPU.

    It did not look at all so far: what a start leaves are some thousand objects, and looking for them takes 0.1 s.
    An object that is looked at costs a third of a microsecond, one that is found two, and nobody is served
    meanwhile. So the step behind two others looks at what these have left, some 3,000 objects, and not at that of
    ten; and at everything that has come since the start as rarely as with ten, when 1.2 million more are there.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(1_000, 1, 400)


def _announce(settings: Settings, broker: Broker, url: str) -> None:
    backlog = broker.backlog
    logger.info(
        "runlane %s listening on %s, database %s, restored %d queued and %d running runs",
        __version__,
        url,
        settings.db,
        backlog.queued,
        backlog.leased,
    )


async def _drain(broker: Broker, seconds: float) -> None:
    """Say goodbye; give what runs a moment to report. What does not is resumed by the next broker."""
    logger.info("draining")
    broker.core.drain()
    deadline = asyncio.get_running_loop().time() + seconds
    await asyncio.sleep(_PARTING_SECONDS)
    while broker.core.holds_runs() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_PARTING_SECONDS)
