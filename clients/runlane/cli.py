"""The `runlane` command. Exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted.

Every subcommand imports what it needs itself, so that none waits for another's imports.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from . import __version__

if TYPE_CHECKING:
    from .worker import Worker

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

_BROKER_COMMANDS: Final = ("serve", "demo")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _run(argv: list[str]) -> int:
    if argv and argv[0] in _BROKER_COMMANDS:
        return _broker(argv[0], argv[1:])
    options = _parser().parse_args(argv)
    if options.command == "worker":
        return _worker(options)
    print(f"runlane {__version__}")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runlane", description="Durable task dispatch over WebSockets.")
    parser.add_argument("--version", action="version", version=f"runlane {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    worker = commands.add_parser("worker", help="execute the runs of a module's tasks")
    worker.add_argument("module", metavar="MODULE", help="pkg.mod or file.py, optionally with :task,task")
    worker.add_argument("--limit", type=int, default=10, help="runs at once (default: %(default)s)")
    worker.add_argument("--url", help="the broker (default: RUNLANE_URL, or http://127.0.0.1:4200)")
    worker.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    worker.add_argument("--json-logs", action="store_true", help="one JSON object a line")
    commands.add_parser("version", help="print the version")
    # Only for the help: these take their own options.
    commands.add_parser("serve", help="run a broker (needs runlane[broker])")
    commands.add_parser("demo", help="run a broker, a worker and some tasks (needs runlane[broker])")
    return parser


def _broker(command: str, argv: list[str]) -> int:
    try:
        from runlane_broker import cli
    except ImportError as exc:
        return _complain(f"runlane {command} needs the broker: install runlane[broker] ({exc})")
    return cli.serve(argv) if command == "serve" else cli.demo(argv)


def _worker(options: argparse.Namespace) -> int:
    from .errors import ArgumentError, SettingsError
    from .settings import load_settings
    from .worker import UsageError, Worker, find_tasks

    _configure_logging(options.log_level, as_json=options.json_logs)
    sys.path.insert(0, os.getcwd())
    try:
        tasks = find_tasks(options.module)
        worker = Worker(tasks, limit=options.limit, settings=load_settings(url=options.url))
    except (UsageError, ArgumentError, SettingsError) as exc:
        return _complain(str(exc))
    names = ", ".join(worker.tasks)
    print(
        f"runlane {__version__} worker: {names}; limit {worker.limit}, broker {worker.settings.url}",
        flush=True,
    )
    code = _work(worker)
    if worker.stuck_threads:
        _leave_threads_behind(code)
    return code


def _work(worker: Worker) -> int:
    import asyncio

    from .errors import ConnectionFailed
    from .worker import stop_on_signals

    async def run() -> None:
        with stop_on_signals(worker):
            await worker.run()

    try:
        asyncio.run(run())
    except ConnectionFailed as exc:
        print(f"runlane: {exc}", file=sys.stderr)
        return FAILED
    except asyncio.CancelledError:
        return INTERRUPTED
    return DONE


def _leave_threads_behind(code: int) -> NoReturn:
    """Exit although threads run that nothing can stop: the interpreter would wait for them."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _complain(message: str) -> int:
    print(f"runlane: {message}", file=sys.stderr)
    return USAGE


def _configure_logging(level: str, *, as_json: bool) -> None:
    from .logs import JsonFormatter

    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("websockets").setLevel(logging.WARNING)
