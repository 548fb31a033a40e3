"""Finding tasks: `pkg.mod` or `file.py`, all of its tasks or those named after a colon."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias, cast

from ..errors import RunlaneError
from ..keys import default_key
from ..protocol.messages import Part
from ..tasks import Task, all_tasks

#: Returns what is entered before the first run begins, and left after the last; what it yields is for tasks.
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

log: Final = logging.getLogger("runlane.worker")

_TARGET: Final = re.compile(r"(?P<module>.+?)(?::(?P<names>[^\W\d]\w*(?:,[^\W\d]\w*)*))?")


class UsageError(RunlaneError):
    """What was asked for on the command line does not exist."""


class TaskSource(Part, frozen=True):
    """Where a task is defined. `file` is that of a module which is no part of a package."""

    key: str
    module: str
    file: str | None = None


@dataclass(frozen=True)
class Found:
    """The tasks of a module by their names there, and those that it has from others, and that are left out."""

    tasks: dict[str, Task[..., Any]]
    left_out: dict[str, Task[..., Any]] = field(default_factory=dict[str, Task[..., Any]])


def find_tasks(target: str) -> Found:
    """Import a module and return its tasks: `pkg.mod`, `dir/file.py`, or either with `:name,name`.

    Where none is named, those that are defined there (in a package: or in its modules); in a module that defines
    none, those that it imports. Raises `UsageError` where there is no such module, or no task in it. What the
    module raises is passed on.
    """
    found = _TARGET.fullmatch(target)
    if found is None:
        raise UsageError(f"{target!r} names no module")
    module = _load(found["module"])
    if found["names"]:
        return Found({name: _named(module, name) for name in found["names"].split(",")})
    items = [
        (name, cast("Task[..., Any]", value)) for name, value in vars(module).items() if isinstance(value, Task)
    ]
    if not items:
        raise UsageError(f"there is no task in {module.__name__}: decorate a function with @task")
    own = {name: task for name, task in items if _is_defined_in(module, task)}
    keys = {task.key for task in own.values()}
    others = {name: task for name, task in items if task.key not in keys}
    return Found(own, others) if own else Found(others)


def find_lifespan(target: str) -> Lifespan:
    """Import what `pkg.mod:name` or `dir/file.py:name` names. Raises `UsageError`."""
    module, _, name = target.rpartition(":")
    if not module or not name:
        raise UsageError(f"{target!r} names no lifespan: MODULE:NAME")
    lifespan = getattr(_load(module), name, None)
    if not callable(lifespan):
        raise UsageError(f"{module}.{name} cannot be called: it must return an async context manager")
    return cast("Lifespan", lifespan)


def source_of(task: Task[..., Any]) -> TaskSource:
    """Say where a task is defined, for a process that is to import it."""
    function = task.function
    module = default_key(function).removesuffix(f".{function.__qualname__}")
    file = _file_of(function.__module__)
    alone = file is not None and Path(file).stem == module
    return TaskSource(key=task.key, module=module, file=file if alone else None)


def load_task(source: TaskSource) -> Task[..., Any]:
    """Import the module of a task, as the worker's other end did, and return the task.

    Raises `UsageError` where it is not there, and what the module raises.
    """
    if source.file is None:
        importlib.import_module(source.module)
    else:
        _load_file(Path(source.file))
    found = all_tasks.get(source.key)
    if found is None:
        raise UsageError(f"{source.module} has no task with the key {source.key} when it is imported")
    return found


def _file_of(module: str) -> str | None:
    file: str | None = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else str(Path(file).resolve())


def _is_defined_in(module: ModuleType, task: Task[..., Any]) -> bool:
    function = task.function
    if not hasattr(function, "__qualname__"):  # an object, which only says of what class it is
        return True
    return f"{function.__module__}.".startswith(f"{module.__name__}.")


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


def _dotted(path: Path) -> str:
    """Return the name under which the package's other modules import a file."""
    names = [path.stem]
    while (path := path.parent.resolve()) and (path / "__init__.py").exists():
        names.insert(0, path.name)
    return ".".join(names)


def _load_file(path: Path) -> ModuleType:
    """Import a file as `python file.py` would find it: by its stem, its folder first on the path. Once."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if (path.parent / "__init__.py").exists():
        log.warning("%s is part of a package: did you mean %s? Its keys begin with its name", path, _dotted(path))
    if _file_of(path.stem) == str(path.resolve()):
        return sys.modules[path.stem]
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
