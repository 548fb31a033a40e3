"""`runlane serve`: from arguments to a running broker. Exit codes: 0, 1 failed, 2 usage, 130 interrupted."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from runlane import __version__

from . import logs
from .app import Broker, create_app, running_broker
from .clock import SystemClock
from .errors import ConfigurationError, StartupError, StoreUnavailable
from .serving import bind, serving, stop_signals, url_of
from .settings import Settings, load
from .storage.location import sqlite_path
from .storage.lock import FileLock
from .storage.schema import upgrade

logger = logging.getLogger("runlane")


def serve(argv: Sequence[str]) -> int:
    """Run a broker until it is told to stop; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logs.configure(arguments.log_level, as_json=arguments.log_format == "json")
    flags = {name: getattr(arguments, name) for name in ("host", "port", "db", "token_file")}
    try:
        _run(_serve(load(os.environ, flags)))
    except ConfigurationError as exc:
        print(f"runlane: {exc}", file=sys.stderr)
        return 2
    except (StartupError, StoreUnavailable) as exc:
        print(f"runlane: {exc}", file=sys.stderr)
        return 1
    return 0


def demo(argv: Sequence[str]) -> int:
    """Run a broker, two workers and a job whose answers can be checked; returns the exit code."""
    argparse.ArgumentParser(prog="runlane demo", description=demo.__doc__).parse_args(argv)
    from .demo import job

    try:
        report = asyncio.run(job.run(print))
    except StartupError as exc:
        print(f"runlane: {exc}", file=sys.stderr)
        return 1
    print("\n".join(report.lines()))
    if report.wrong:
        print(f"runlane: wrong answers for {', '.join(map(str, report.wrong[:3]))}", file=sys.stderr)
    return 1 if report.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runlane serve", description="Run a broker.")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (default: 4200)")
    parser.add_argument("--db", metavar="URL", help="sqlite:///PATH (default: sqlite:///runlane.db)")
    parser.add_argument("--token-file", metavar="PATH", help="file with the token that clients must show")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--log-format", default="console", choices=("console", "json"))
    return parser


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


async def _serve(settings: Settings) -> None:
    path = sqlite_path(settings.db)
    listener = bind(settings.host, settings.port)
    lock = FileLock(path)
    try:
        await asyncio.to_thread(upgrade, path)
        async with running_broker(settings, path, SystemClock()) as broker:
            stop = asyncio.Event()
            with stop_signals(stop.set):
                async with serving(create_app(broker.core), listener):
                    _calm_garbage_collector()
                    _announce(settings, broker, url_of(listener))
                    await stop.wait()
                    await _drain(broker, settings.timers.drain)
    finally:
        lock.release()
        listener.close()


def _calm_garbage_collector() -> None:
    """Look for cycles less often, and never among what lives as long as the process: a quarter of the CPU."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


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
    while broker.core.holds_runs() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
