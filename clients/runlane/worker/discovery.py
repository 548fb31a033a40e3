"""Finding tasks: `pkg.mod` or `file.py`, all of its tasks or those named after a colon."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from ..errors import RunlaneError
from ..tasks import Task

_TARGET: Final = re.compile(r"(?P<module>.+?)(?::(?P<names>[^\W\d]\w*(?:,[^\W\d]\w*)*))?")


class UsageError(RunlaneError):
    """What was asked for on the command line does not exist."""


def find_tasks(target: str) -> list[Task[..., Any]]:
    """Import a module and return its tasks: `pkg.mod`, `dir/file.py`, or either with `:name,name`.

    Raises `UsageError` where there is no such module, or no task in it. What the module raises is passed on.
    """
    found = _TARGET.fullmatch(target)
    if found is None:
        raise UsageError(f"{target!r} names no module")
    module = _load(found["module"])
    if found["names"]:
        return [_named(module, name) for name in found["names"].split(",")]
    tasks = [cast("Task[..., Any]", value) for value in vars(module).values() if isinstance(value, Task)]
    if not tasks:
        raise UsageError(f"there is no task in {module.__name__}: decorate a function with @task")
    return tasks


def _named(module: ModuleType, name: str) -> Task[..., Any]:
    value = getattr(module, name, None)
    if not isinstance(value, Task):
        what = "is no task" if hasattr(module, name) else "does not exist"
        raise UsageError(f"{module.__name__}.{name} {what}")
    return cast("Task[..., Any]", value)


def _load(name: str) -> ModuleType:
    if name.endswith(".py"):
        return _load_file(Path(name))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (name == exc.name or name.startswith(f"{exc.name}.")):
            raise  # it exists, and imports something that does not
        raise UsageError(f"there is no module {exc.name!r}") from exc


def _load_file(path: Path) -> ModuleType:
    """Import a file as `python file.py` would find it: by its stem, its folder first on the path."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
