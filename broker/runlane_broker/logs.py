"""Logging of the command-line program: one line an event, for people or as JSON. Libraries configure nothing."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

from runlane.logs import JsonFormatter

#: What could end a line, or be taken for a command by a terminal.
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
#: What uvicorn says, as an error, of every upgrade that was answered with an HTTP status.
_REFUSED_UPGRADE: Final = "ASGI callable returned without completing handshake."
#: What it says when peers do not answer the close of a broker that stops.
_CUT_OFF: Final = "Cancel %s running task(s), timeout graceful shutdown exceeded"
_NO_EVENTS: Final = frozenset({_REFUSED_UPGRADE, _CUT_OFF})


class OneLine(logging.Formatter):
    """`2026-03-01 12:00:00,000 INFO runlane: message`, as a worker has it; control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it where there is one."""
        when = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
        line = f"{when} {record.levelname} {record.name}: {record.getMessage().translate(_CONTROL)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _PeersMistakes(logging.Filter):
    """uvicorn logs a peer's broken text with a traceback of its own, and a refused upgrade as an error of ours.

    One line says as much of the first; the second is no event.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the traceback off; drop what is no event."""
        if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return record.msg not in _NO_EVENTS


def configure(level: str, *, as_json: bool) -> None:
    """Send what is logged to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else OneLine())
    handler.addFilter(_PeersMistakes())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("uvicorn", "uvicorn.error", "alembic", "asyncio", "aiosqlite", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
