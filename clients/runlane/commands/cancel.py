"""`runlane cancel` and `runlane requeue`: runs by id, or all that fit."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from ..config import ClientSection, ConfigError, load_config
from ..config.flags import add_flags, flags_of
from ..errors import ArgumentError, RunlaneError
from ..rest import RequestRefused
from ..runs import FlowRuns, TaskRuns
from .console import DONE, FAILED, USAGE, Parser, complain, one_line

_ABOUT: Final = {
    "cancel": "Cancel runs: what waits will never start, what runs is told to stop.",
    "requeue": "Queue parked runs again: those that have cost too many workers.",
}
_CODES: Final = "exit codes: 0 done, 1 refused or not there (some of them, maybe), 2 used wrongly\n"
_EPILOGS: Final = {
    "cancel": f"""\
Prints each run's id and state: CANCELLED, or CANCELLING while a worker stops it, or that in which it had ended.
Of many, prints how many.

{_CODES}
examples:
  runlane cancel 0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90
  runlane cancel --key tasks.report --state SCHEDULED
  runlane cancel --all
""",
    "requeue": f"""\
{_CODES}
examples:
  runlane requeue 0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90
  runlane requeue --parked --key tasks.report
""",
}


def main(command: str, argv: Sequence[str]) -> int:
    """Run one of the commands; returns the exit code."""
    parser = _parser(command)
    options = parser.parse_args(argv)
    chosen = [name for name in ("keys", "states", "tags", "every") if getattr(options, name, None)]
    if bool(options.ids) == bool(chosen):
        parser.error("say which runs: ids, or what they have in common, and not both")
    if command == "requeue" and chosen and not options.every:
        parser.error("--key and --tag need --parked")
    try:
        client = load_config(flags=flags_of(options)).of(ClientSection)
    except ConfigError as exc:
        return complain(exc, USAGE)
    try:
        return _each(client, command, options) if options.ids else _all(TaskRuns(client), command, options)
    except ArgumentError as exc:
        return complain(exc, USAGE)
    except RunlaneError as exc:
        return complain(exc, FAILED)


def _each(client: ClientSection, command: str, options: argparse.Namespace) -> int:
    code = DONE
    states: dict[str, Any] = {}
    for run_id in options.ids:
        try:
            state = _change(client, command, run_id)
        except RequestRefused as exc:
            code = complain(f"{run_id}: {exc}", FAILED)
            continue
        states[run_id] = state
        if not options.json:
            print(run_id, one_line(state["type"] if command == "cancel" else state["name"]))
    if options.json:
        print(json.dumps({run_id: {"type": one["type"], "name": one["name"]} for run_id, one in states.items()}))
    return code


def _change(client: ClientSection, command: str, run_id: str) -> dict[str, Any]:
    """Change a run of either kind; an id does not say of which. Where there is none it is no task run."""
    try:
        return _one(TaskRuns(client), command, run_id)
    except RequestRefused as no_task_run:
        if no_task_run.status != HTTPStatus.NOT_FOUND:
            raise
        try:
            return _one(FlowRuns(client), command, run_id)
        except RequestRefused as exc:
            raise (no_task_run if exc.status == HTTPStatus.NOT_FOUND else exc) from None


def _one(runs: TaskRuns | FlowRuns, command: str, run_id: str) -> dict[str, Any]:
    return runs.cancel(run_id) if command == "cancel" else runs.requeue(run_id)


def _all(runs: TaskRuns, command: str, options: argparse.Namespace) -> int:
    if command == "cancel":
        counts = runs.cancel_all(keys=options.keys, states=options.states, tags=options.tags, every=options.every)
        text = f"{counts['cancelled']} cancelled, {counts['cancelling']} being stopped by their workers"
    else:
        counts = runs.requeue_all(keys=options.keys, tags=options.tags)
        text = f"{counts['requeued']} queued again"
    print(json.dumps(dict(counts)) if options.json else text)
    return DONE


def _parser(command: str) -> argparse.ArgumentParser:
    parser = Parser(f"runlane {command}", _ABOUT[command], _EPILOGS[command])
    many: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("ids", metavar="ID", nargs="*", help="a run's id")
    parser.add_argument("--key", dest="keys", metavar="KEY", help="runs of this task; may be repeated", **many)
    parser.add_argument("--tag", dest="tags", metavar="TAG", help="runs with this tag; of several, all", **many)
    if command == "cancel":
        parser.add_argument(
            "--state",
            dest="states",
            metavar="STATE",
            help="runs in this state: a type or a name; repeatable",
            **many,
        )
        parser.add_argument("--all", dest="every", action="store_true", help="all that have not ended")
    else:
        parser.add_argument(
            "--parked", dest="every", action="store_true", help="all parked runs, or those of them"
        )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_flags(parser, ClientSection)
    return parser
