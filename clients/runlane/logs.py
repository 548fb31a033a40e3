"""Logs as JSON, one object a line: a worker's and a broker's alike."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

#: What a record gets from `extra` and is worth a field of its own.
_FIELDS: Final = ("run_id", "task_key")


class JsonFormatter(logging.Formatter):
    """Writes time (UTC), level, logger and message, and the run where the record names one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: str(getattr(record, name)) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # In ASCII: no text ends the line, means anything to a terminal or, as half a surrogate, can't be written.
        return json.dumps(line, separators=(",", ":"))
