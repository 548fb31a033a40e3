"""The `runlane` command. Exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted.

Every subcommand imports what it needs itself, so that none waits for another's imports.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from . import __version__
from .commands.console import DONE, FAILED, INTERRUPTED, USAGE, Parser, complain
from .config import ClientSection, ConfigError, WorkerSection, load_config
from .config.flags import add_flags, flags_of

if TYPE_CHECKING:
    from .settings import Settings

#: Seconds that running tasks get to finish when a file has changed: given back, they run again with the new code.
RELOAD_DRAIN_SECONDS: Final = 1.0
#: Commands that read their own options.
_OTHERS: Final = {
    "serve": "run a broker (needs runlane[broker])",
    "demo": "see a broker and two workers at work (needs runlane[broker])",
    "submit": "submit a run of a task, and wait for its result",
    "cancel": "cancel runs: by id, or all of a task",
    "requeue": "queue parked runs again",
    "status": "say whether the broker is there and ready, or wait until it is",
    "queue": "list, create and change work queues",
    "pool": "list, create and change work pools",
    "config": "show what is set, and where that comes from",
}

_WORKER: Final = "execute the runs of a module's tasks"
_WORKER_EPILOG: Final = """\
SIGTERM or one Ctrl-C: take nothing more, finish what runs, give back the rest. Once more: stop at once.

exit codes: 0 stopped as told, 1 the module cannot be imported, or the broker will not have
it, 2 used wrongly, 130 stopped at once

examples:
  runlane worker tasks.py
  runlane worker package.tasks:add,send --limit 50 --url https://broker.example --token-file token
"""

_EPILOG: Final = """\
Settings come from options, RUNLANE_… variables, runlane.toml and [tool.runlane] of pyproject.toml, in this
order. `runlane COMMAND --help` says more.

exit codes: 0 done, 1 failed, 2 used wrongly, 130 interrupted

examples:
  runlane serve
  runlane worker tasks.py
  runlane submit tasks.add --args '{"a": 2, "b": 3}' --wait
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  (it may have been closed)
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as exc:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's end tries again
        # Whoever read the output may have had enough; a disk may be full.
        code = FAILED if isinstance(exc, BrokenPipeError) else complain(exc, FAILED)
    if argv is None and arguments[:1] == ["serve"]:  # the process is this command's own
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End the process now: to take a broker apart takes 0.3 s, for which the next one may be waiting."""
    logging.shutdown()
    os._exit(code)


def _run(argv: list[str]) -> int:
    match argv[:1]:
        case ["serve" | "demo" as command]:
            return _broker(command, argv[1:])
        case ["submit"]:
            from .commands import submit

            return submit.main(argv[1:])
        case ["cancel" | "requeue" as command]:
            from .commands import cancel

            return cancel.main(command, argv[1:])
        case ["status"]:
            from .commands import status

            return status.main(argv[1:])
        case ["queue" | "pool" as command]:
            from .commands import queues

            return queues.main(command, argv[1:])
        case ["config"]:
            from .commands import config

            return config.main(argv[1:])
        case _:
            options, unknown = (parser := _parser()).parse_known_args(argv)
            if unknown:
                parser.prog = f"{parser.prog} {options.command}"  # where the option should be
                parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command == "worker":
        return _reloading(options, argv) if options.reload else _worker(options)
    print(f"runlane {__version__}")
    return DONE


def _parser() -> Parser:
    parser = Parser("runlane", "Durable task dispatch over WebSockets.", _EPILOG)
    parser.add_argument("--version", action="version", version=f"runlane {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    serve, *others = _OTHERS
    commands.add_parser(serve, help=_OTHERS[serve])
    worker = commands.add_parser(
        "worker", help=_WORKER, description=f"{_WORKER.capitalize()}, until told to stop.", epilog=_WORKER_EPILOG
    )
    worker.add_argument("module", metavar="MODULE", help="pkg.mod or file.py, optionally with :task,task")
    worker.add_argument("--name", metavar="TEXT", help="what people call it (default: host and process)")
    worker.add_argument(
        "--fence", action="store_true", help="stop tasks before their lease can be elsewhere, when cut off"
    )
    worker.add_argument(
        "--lifespan", metavar="MODULE:NAME", help="async context manager around all work; yields resources"
    )
    worker.add_argument(
        "--reload",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="start again when a .py file below this folder changes",
    )
    worker.add_argument("--json-logs", action="store_true", help="the same as --log-format json")
    add_flags(worker, WorkerSection, ClientSection)
    for name in others:
        commands.add_parser(name, help=_OTHERS[name])
    commands.add_parser("version", help="print the version")
    return parser


def _broker(command: str, argv: list[str]) -> int:
    try:
        from runlane_broker import cli

        return cli.serve(argv) if command == "serve" else cli.demo(argv)
    except ImportError as exc:
        return complain(f"runlane {command} needs the broker: install runlane[broker] ({exc})", USAGE)


def _worker(options: argparse.Namespace) -> int:
    from .errors import ArgumentError, ConnectionFailed
    from .settings import Settings
    from .tracebacks import traceback_of
    from .worker import ProcessFailed, UsageError, Worker, find_lifespan, find_tasks, work

    try:
        config = load_config(flags=flags_of(options))
        told, settings = config.of(WorkerSection), config.of(Settings)
    except ConfigError as exc:
        return complain(exc, USAGE)
    _configure_logging(told.log_level, as_json=options.json_logs or told.log_format == "json")
    _submit_there(settings, options)
    sys.path.insert(0, os.getcwd())
    try:
        found = find_tasks(options.module)
        lifespan = find_lifespan(options.lifespan) if options.lifespan else None
    except UsageError as exc:
        return complain(exc, USAGE)
    except Exception as exc:  # whatever the module raises
        sys.stderr.write(traceback_of(exc))
        return complain(f"cannot import {options.module}: {type(exc).__name__}: {exc}", FAILED)
    try:
        worker = Worker(
            found.tasks.values(),
            limit=told.limit,
            settings=settings,
            client_id=options.name,
            drain_seconds=told.drain_timeout,
            fence=options.fence,
            lifespan=lifespan,
        )
    except ArgumentError as exc:
        return complain(exc, USAGE)
    names = ", ".join(worker.tasks)
    print(
        f"runlane {__version__} worker: {names}; limit {worker.limit}, broker {worker.settings.url}",
        flush=True,
    )
    if found.left_out:
        keys = ", ".join(task.key for task in found.left_out.values())
        every = ",".join((*found.tasks, *found.left_out))
        print(f"imported there, and not served: {keys}; to serve these, too: {options.module}:{every}", flush=True)
    try:
        return work(worker)
    except (ConnectionFailed, ProcessFailed) as exc:
        return complain(exc, FAILED)


def _reloading(options: argparse.Namespace, argv: list[str]) -> int:
    from .worker.reload import Reloader

    _configure_logging("info", as_json=options.json_logs)
    command = [*argv, "--no-reload"]
    if getattr(options, "worker.drain_timeout") is None:
        command += ["--drain-timeout", str(RELOAD_DRAIN_SECONDS)]
    return Reloader([sys.executable, "-m", "runlane", *command], Path.cwd()).run()


def _submit_there(settings: Settings, options: argparse.Namespace) -> None:
    """Have tasks that submit do so where their worker works, whatever the environment says."""
    os.environ["RUNLANE_URL"] = settings.url
    token_file = getattr(options, "client.token_file")
    if token_file is not None:
        os.environ.pop("RUNLANE_TOKEN", None)
        os.environ["RUNLANE_TOKEN_FILE"] = token_file


def _configure_logging(level: str, *, as_json: bool) -> None:
    from .logs import JsonFormatter

    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("websockets").setLevel(logging.WARNING)
