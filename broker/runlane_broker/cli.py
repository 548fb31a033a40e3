"""`runlane serve` and `runlane demo`. What they run is imported when they do: help and mistakes come at once."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

from runlane.commands.console import DONE, FAILED, INTERRUPTED, USAGE, Parser, complain
from runlane.config.flags import add_flags, flags_of

from . import logs
from .errors import ConfigurationError, StartupError, StoreUnavailable
from .serving.listening import bind
from .settings import Settings, load

if TYPE_CHECKING:
    from .demo.report import Report

_SERVE_EPILOG: Final = """\
More settings, such as timers, have no option: `runlane config show` lists all of them.

exit codes: 0 stopped as told, 1 cannot start here and now, 2 cannot start as told

examples:
  runlane serve
  runlane serve --host 0.0.0.0 --token-file token --db sqlite:////var/lib/runlane/runlane.db
  RUNLANE_TIMERS_DRAIN=5 runlane serve --log-format json
"""

_DEMO: Final = """\
Run a broker and two workers, measure every file of Python's standard library with them, check every answer,
and say what the workers have done and what has happened to one of the runs.
"""


def serve(argv: Sequence[str]) -> int:
    """Run a broker until it is told to stop; returns the exit code."""
    flags = flags_of(_parser().parse_args(argv))
    try:
        settings = load(os.environ, {key.removeprefix("broker."): value for key, value in flags.items()})
        logs.configure(settings.log_level, as_json=settings.log_format == "json")
        with closing(bind(settings.host, settings.port)) as listener:
            _run(settings, listener)
    except ConfigurationError as exc:
        return complain(exc, USAGE)
    except (StartupError, StoreUnavailable) as exc:
        return complain(exc, FAILED)
    return DONE


def _run(settings: Settings, listener: socket.socket) -> None:
    gc.disable()  # a tenth of what follows, in vain: nearly all of it stays
    try:
        from .program import run_broker

        run_broker(settings, listener)
    finally:
        gc.enable()


def demo(argv: Sequence[str]) -> int:
    """Run a broker, two workers and a job whose answers can be checked; returns the exit code."""
    Parser("runlane demo", _DEMO).parse_args(argv)
    from .demo.display import make_display
    from .demo.job import run
    from .serving.server import stop_signals

    async def watched() -> Report:
        """Leave nothing behind, however the demo is ended."""
        job = asyncio.ensure_future(run(display))
        with stop_signals(job.cancel):
            return await job

    display = make_display()
    try:
        report = asyncio.run(watched())
    except StartupError as exc:
        return complain(exc, FAILED)
    except asyncio.CancelledError:
        return INTERRUPTED
    display.say(report.render())
    if report.wrong:
        return complain(f"wrong answers for {', '.join(map(str, report.wrong[:3]))}", FAILED)
    return DONE


def _parser() -> Parser:
    parser = Parser("runlane serve", "Run a broker: one process, one SQLite file.", _SERVE_EPILOG)
    add_flags(parser, Settings)
    return parser
