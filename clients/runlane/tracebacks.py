"""Tracebacks for users: of their own code, and not of what called it."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

_HERE: Final = str(Path(__file__).parent)
_IMPORT_MACHINERY: Final = ("<frozen importlib", "<frozen runpy")


def traceback_of(error: BaseException) -> str:
    """Return the traceback without the frames of this package and of the import machinery.

    A cause that has no other frames goes with them: it is how this package works.
    """
    shown = traceback.TracebackException.from_exception(error)
    _strip(shown)
    return "".join(shown.format() if shown.stack else shown.format_exception_only())


def _strip(shown: traceback.TracebackException) -> None:
    shown.stack = traceback.StackSummary.from_list([frame for frame in shown.stack if _is_theirs(frame)])
    for name in ("__cause__", "__context__"):
        earlier: traceback.TracebackException | None = getattr(shown, name)
        if earlier is not None:
            _strip(earlier)
            if not earlier.stack:
                setattr(shown, name, None)


def _is_theirs(frame: traceback.FrameSummary) -> bool:
    file = frame.filename
    return not (file.startswith((_HERE, *_IMPORT_MACHINERY)) or file.endswith("importlib/__init__.py"))
