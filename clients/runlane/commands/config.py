"""`runlane config show`: every setting, its value, and who said so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from ..config import Config, ConfigError, Resolved, load_config
from .console import DONE, USAGE, Parser, complain

MASK: Final = "********"

_EPILOG: Final = """\
Where values come from, the first that has one: options of a command, RUNLANE_… variables, the nearest
runlane.toml, [tool.runlane] of the nearest pyproject.toml, the default. RUNLANE_CONFIG=FILE names a file
to read in place of the two.

examples:
  runlane config show
  runlane config show --json | jq '."broker.port"'
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        config = load_config()
        resolved = list(config)
    except ConfigError as exc:
        return complain(exc, USAGE)
    print(_as_json(resolved) if options.json else "\n".join(_as_toml(config, resolved)))
    return DONE


def _parser() -> Parser:
    parser = Parser(
        prog="runlane config",
        description="Show every setting, as it holds here and now, and where its value comes from.",
        epilog=_EPILOG,
    )
    parser.add_argument("action", choices=["show"], help="the one thing that can be done")
    parser.add_argument("--json", action="store_true", help="one JSON object: name -> value and source")
    return parser


def _as_json(resolved: Iterable[Resolved]) -> str:
    return json.dumps({r.setting.key: {"value": _harmless(r), "source": r.source} for r in resolved}, indent=2)


def _harmless(resolved: Resolved) -> Any:
    if resolved.setting.secret:
        return resolved.value and MASK
    return resolved.setting.kind.harmless(resolved.value)


def _as_toml(config: Config, resolved: Iterable[Resolved]) -> Iterator[str]:
    """Yield lines that are a runlane.toml themselves, with the sources in comments."""
    yield f"# read: {', '.join(map(str, config.paths)) or 'no file'}"
    for section, settings in groupby(resolved, lambda r: r.setting.section):
        lines = [(_line(r), r.source) for r in settings]
        width = max(len(line) for line, _ in lines)
        yield from ("", f"[{section}]", *(f"{line:<{width}}  # {source}" for line, source in lines))


def _line(resolved: Resolved) -> str:
    setting, value = resolved.setting, resolved.value
    if setting.secret:  # it has no place in a file
        return f"# {setting.name}: {'not set' if value is None else MASK}"
    return f"{setting.name} = {setting.kind.show(value)}"
