"""Names of tasks: the same in the program that submits and in the worker that executes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ArgumentError


def default_key(function: Callable[..., Any]) -> str:
    """Return `module.qualname`. A script's module is named as a worker would import it, not `__main__`.

    Raises `ArgumentError` for what has no name of its own (a `functools.partial`).
    """
    name: str | None = getattr(function, "__qualname__", None)
    if name is None:
        raise ArgumentError(f"{function!r} has no name: give its task one, @task(key=…)")
    module: str = getattr(function, "__module__", None) or "unknown"
    return f"{_main_name() if module == '__main__' else module}.{name}"


def has_no_place(key: str) -> bool:
    """Say whether this is the key of a function in a function, or of a lambda: importing its module gives none."""
    return "<locals>" in key or "<lambda>" in key


def _main_name() -> str:
    """Return the program as a worker imports it: `pkg.app` for `python -m pkg.app`, `app` for `python app.py`."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"
