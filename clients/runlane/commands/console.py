"""How commands talk: exit codes, errors in one line, help that reads well."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final, NoReturn

from ..config.kinds import ConfigError, Seconds

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

_CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160)), " ")


def one_line(text: str) -> str:
    """Return a text that can do a terminal no harm: a peer may have written it."""
    return " ".join(text.translate(_CONTROL).split())


def complain(message: object, code: int) -> int:
    """Say what is wrong, in a line; return the exit code."""
    print(f"runlane: {one_line(str(message))}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose texts stay as they were written."""

    def __init__(
        self, prog: str, description: str | None = None, epilog: str | None = None, **others: Any
    ) -> None:
        super().__init__(prog, None, description, epilog, formatter_class=_Help, allow_abbrev=False, **others)

    def error(self, message: str) -> NoReturn:
        """Exit with a line that says where to read more."""
        self.exit(USAGE, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Room for the options' names, so that most stand in one line with what they do."""

    def __init__(self, prog: str, **others: Any) -> None:
        super().__init__(prog, max_help_position=30, **others)


def seconds(text: str) -> float:
    """Return a duration that an option gives, for `type=`."""
    try:
        return Seconds(may_be_zero=True).read(text)
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
