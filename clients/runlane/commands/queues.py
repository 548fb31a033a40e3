"""`runlane queue` and `runlane pool`: list, create, pause, resume, set, delete."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any, Final

from ..config import ClientSection, ConfigError, load_config
from ..config.flags import add_flags, flags_of
from ..errors import ArgumentError, RunlaneError
from ..queues import WorkQueues
from .console import DONE, FAILED, USAGE, Parser, complain, one_line

_EPILOGS: Final = {
    "queue": """\
A queue is NAME, in the default pool, or POOL/NAME.

exit codes: 0 done, 1 refused or not there, 2 used wrongly

examples:
  runlane queue ls
  runlane queue create nightly/reports --priority 1 --limit 5
  runlane queue pause nightly/reports
  runlane queue set nightly/reports --limit none --late-after 60
""",
    "pool": """\
exit codes: 0 done, 1 refused or not there, 2 used wrongly

examples:
  runlane pool ls
  runlane pool create nightly --limit 20
  runlane pool pause nightly
""",
}


def main(kind: str, argv: Sequence[str]) -> int:
    """Run the command on queues or pools; returns the exit code."""
    parser = _parser(kind)
    options = parser.parse_args(argv)
    if options.action == "set" and not _values(options):
        parser.error("set needs something to set")
    if kind == "queue" and options.action != "ls" and options.name.startswith("/"):
        parser.error(f"{options.name!r} is neither NAME nor POOL/NAME")
    try:
        client = load_config(flags=flags_of(options)).of(ClientSection)
    except ConfigError as exc:
        return complain(exc, USAGE)
    try:
        (_pools if kind == "pool" else _queues)(WorkQueues(client), options)
    except ArgumentError as exc:
        return complain(exc, USAGE)
    except RunlaneError as exc:
        return complain(exc, FAILED)
    return DONE


def _queues(queues: WorkQueues, options: argparse.Namespace) -> None:
    if options.action == "ls":
        found = queues.list(options.pool)
        if options.json:
            print(json.dumps(found))
        else:
            _show(_as_typed(found, queues.pools()), _QUEUE_COLUMNS)
        return
    pool, _, name = options.name.rpartition("/")
    if "/" in pool:
        raise ArgumentError(f"{options.name}: a queue is NAME or POOL/NAME, with one slash at most")
    match options.action:
        case "create":
            queues.create(name, pool or None, **_values(options))
        case "delete":
            queues.delete(name, pool or None)
        case _:
            queues.update(name, pool or None, **_changes(options))


def _pools(queues: WorkQueues, options: argparse.Namespace) -> None:
    match options.action:
        case "ls":
            pools = queues.pools()
            if options.json:
                print(json.dumps(pools))
            else:
                _show(pools, _POOL_COLUMNS)
        case "create":
            queues.create_pool(options.name, **_values(options))
        case "delete":
            queues.delete_pool(options.name)
        case _:
            queues.update_pool(options.name, **_changes(options))


_POOL_COLUMNS: Final = ("name", "type", "status", "concurrency_limit")
_QUEUE_COLUMNS: Final = ("name", "priority", "status", "concurrency_limit", "active_slots", "last_polled")


def _as_typed(queues: list[dict[str, Any]], pools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the queues by pool and priority, named as a command wants it; what a pool's pause stops is PAUSED."""
    paused = {pool["name"] for pool in pools if pool["is_paused"]}
    return [
        {
            **queue,
            "name": f"{queue['work_pool_name']}/{queue['name']}",
            "status": "PAUSED" if queue["work_pool_name"] in paused else queue["status"],
        }
        for queue in sorted(queues, key=lambda queue: (queue["work_pool_name"], queue["priority"]))
    ]


def _show(rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    table = [list(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return "-" if value is None else one_line(str(value))


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    if options.action == "set":
        return _values(options)
    return {"is_paused": options.action == "pause"}


def _values(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was said, by the names of the HTTP API."""
    names = {"priority": "priority", "limit": "concurrency_limit", "late_after": "late_after"}
    names |= {"description": "description", "type": "type"}
    said = vars(options)
    return {name: said[option] for option, name in names.items() if option in said}


def _parser(kind: str) -> argparse.ArgumentParser:
    parser = Parser(f"runlane {kind}", f"List, create and change work {kind}s.", _EPILOGS[kind])
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    for action, help_ in (
        ("ls", "list them"),
        ("create", f"make a {kind}"),
        ("pause", "hand out nothing more"),
        ("resume", "go on"),
        ("set", "change it"),
        ("delete", f"delete a {kind}; its runs stay"),
    ):
        _add_options(actions.add_parser(action, help=help_), kind, action)
    return parser


def _add_options(parser: argparse.ArgumentParser, kind: str, action: str) -> None:
    if action == "ls":
        parser.add_argument("--json", action="store_true", help="a JSON array")
        if kind == "queue":
            parser.add_argument("--pool", metavar="TEXT", help="of this pool only, by priority")
    else:
        parser.add_argument("name", metavar="NAME", help="the pool" if kind == "pool" else "NAME or POOL/NAME")
    if action in ("create", "set"):
        absent: Any = argparse.SUPPRESS
        parser.add_argument("--limit", metavar="N|none", type=_number, default=absent, help="runs at once")
        parser.add_argument("--description", metavar="TEXT", default=absent, help="what it is for")
        if kind == "queue":
            parser.add_argument("--priority", metavar="N", type=int, default=absent, help="1 goes first")
            parser.add_argument(
                "--late-after", metavar="SECONDS|none", type=_number, default=absent, help="when a run is late"
            )
        elif action == "create":
            parser.add_argument(
                "--type", metavar="TEXT", default=absent, help="who executes (default: prefect-agent)"
            )
    add_flags(parser, ClientSection)


def _number(text: str) -> float | int | None:
    """Return a number, or None for `none`."""
    if text == "none":
        return None
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"neither a number nor none: {text!r}") from None
