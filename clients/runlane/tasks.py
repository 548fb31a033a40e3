"""`@task`: a function with a stable name that workers can run."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

import msgspec

from .client import current_client
from .errors import ArgumentError
from .futures import RunFuture
from .protocol import codec
from .protocol.errors import FrameRefused
from .protocol.ids import uuid7
from .protocol.limits import MAX_PAYLOAD_BYTES
from .protocol.messages import NewRun
from .serializers import Arguments, ValueType
from .serializers.hints import hints_of

P = ParamSpec("P")
R = TypeVar("R")

_ANY_ID: Final = "00000000-0000-7000-8000-000000000000"


class TaskOptions(TypedDict, total=False):
    """What `@task` takes. Durations are in seconds.

    `key`: the task's stable name. `retries`: how often a failed run is tried again, `retry_delay`: how long
    after (one number, or one per retry), `retry_jitter`: up to this share of the delay is added at random.
    `timeout`: of one execution. `priority`: 0 to 9, higher first. `tags`: for finding runs.
    """

    key: str | None
    retries: int
    retry_delay: float | Sequence[float]
    retry_jitter: float
    timeout: float | None
    priority: int
    tags: Iterable[str]


class Task(Generic[P, R]):
    """A function that can be called in place, or submitted to run on a worker."""

    def __init__(self, function: Callable[P, Any], options: TaskOptions | None = None) -> None:
        given = options or TaskOptions()
        self.function: Final = function
        self.key: Final = given.get("key") or default_key(function)
        self.is_async: Final = inspect.iscoroutinefunction(function)
        self.arguments: Final = Arguments(function)
        self._result_type = ValueType(hints_of(function).get("return", Any))
        self._template = _template(self.key, given)
        functools.update_wrapper(cast("Callable[P, Any]", self), function)

    def __repr__(self) -> str:
        return f"<Task {self.key}>"

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> RunFuture[R]:
        """Submit a run of the task; return its handle once the broker has committed it.

        Raises `TypeError` for arguments that do not fit, `ArgumentError` for one that cannot be sent,
        `SettingsError`, `ConnectionFailed` and `SubmitRefused`.
        """
        client = current_client()
        (submitted,) = await client.submit((self._new_run(args, kwargs),))
        return RunFuture(submitted.id, client, self._result_type)

    def _new_run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewRun:
        parameters = self.arguments.pack(args, kwargs, MAX_PAYLOAD_BYTES)
        return msgspec.structs.replace(self._template, id=uuid7(), parameters=parameters)


class SyncTask(Task[P, R]):
    """A task of a plain function: a worker runs it in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return self.function(*args, **kwargs)


class AsyncTask(Task[P, R]):
    """A task of a coroutine function: a worker runs it in its event loop."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function here: await what it returns."""
        return self.function(*args, **kwargs)


class _Decorator:
    """What `@task(...)` decorates with."""

    def __init__(self, options: TaskOptions) -> None:
        self._options = options

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]  (the first that matches is meant)
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Task[..., Any]:
        kind = AsyncTask[..., Any] if inspect.iscoroutinefunction(function) else SyncTask[..., Any]
        return kind(function, self._options)


@overload
def task(  # pyright: ignore[reportOverlappingOverload]  (the first that matches is meant)
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncTask[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> SyncTask[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> _Decorator: ...
def task(function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]) -> Any:
    """Make a function a task: `@task`, or `@task(retries=3, timeout=60)`; see `TaskOptions`.

    Raises `ArgumentError` for an option that is out of range.
    """
    decorator = _Decorator(options)
    return decorator if function is None else decorator(function)


def default_key(function: Callable[..., Any]) -> str:
    """Return `module.qualname`. A script's module is named as a worker would import it, not `__main__`."""
    module: str = getattr(function, "__module__", None) or "unknown"
    return f"{_main_name() if module == '__main__' else module}.{function.__qualname__}"


def _main_name() -> str:
    """Return the program as a worker imports it: `pkg.app` for `python -m pkg.app`, `app` for `python app.py`."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


def _template(key: str, options: TaskOptions) -> NewRun:
    """Return a run with the task's options, held to the wire's own rules. Raises `ArgumentError`."""
    delay = options.get("retry_delay", 0.0)
    run = NewRun(
        id=_ANY_ID,
        task_key=key,
        priority=options.get("priority", 0),
        tags=tuple(options.get("tags", ())),
        retries=options.get("retries", 0),
        retry_delay=tuple(delay) if isinstance(delay, Sequence) else delay,
        retry_jitter=options.get("retry_jitter", 0.0),
        timeout=options.get("timeout"),
    )
    try:
        codec.decode_new_run(codec.encode_part(run), f"task {key}", MAX_PAYLOAD_BYTES)
    except FrameRefused as exc:
        raise ArgumentError(f"{exc.field}: {exc.message}") from None
    return run
