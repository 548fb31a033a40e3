"""`@task`: a function with a stable name that workers can run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast, overload
from uuid import UUID
from weakref import WeakValueDictionary

from .bulk import BoundRun, asubmit_many, asubmit_one, submit_many, submit_one
from .client import current
from .errors import ArgumentError
from .futures import RunFuture, checked_id
from .keys import default_key, has_no_place
from .options import Pool, RunOptions, RunPlan, TaskOptions, task_plan
from .serializers import Arguments, Results, Serializer

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


#: The tasks that there are in this process, by key; of several with one key, the latest. Kept per process because
#: nothing else has them all: a process of a worker finds by its key what no name in the module may refer to, and
#: the test kit executes whatever the code under test submits. Weak, so that it keeps none alive.
all_tasks: Final[WeakValueDictionary[str, Task[..., Any]]] = WeakValueDictionary()


class _Takes1(Protocol[A_contra, R_co]):
    """What can be called with one argument; the way to say so of a `ParamSpec`."""

    def bind(self, a: A_contra, /) -> BoundRun[R_co]: ...


class _Takes2(Protocol[A_contra, B_contra, R_co]):
    """… with two."""

    def bind(self, a: A_contra, b: B_contra, /) -> BoundRun[R_co]: ...


class _Takes3(Protocol[A_contra, B_contra, C_contra, R_co]):
    """… with three."""

    def bind(self, a: A_contra, b: B_contra, c: C_contra, /) -> BoundRun[R_co]: ...


class Submitter(Generic[P, R]):
    """Submits runs of one task, all with the same options: a `Task`, or what its `options` returns."""

    def __init__(self, key: str, arguments: Arguments, results: Results, plan: RunPlan) -> None:
        self.key: Final = key
        self.arguments: Final = arguments
        self.results: Final = results
        self.plan: Final = plan

    def __repr__(self) -> str:
        return f"<Submitter of {self.key}>"

    def options(self, **options: Unpack[RunOptions]) -> Submitter[P, R]:
        """Return what submits the same task with other options: `add.options(delay=30).delay(2, 3)`.

        Raises `ArgumentError` for an option that is out of range, or that there is not; see `RunOptions`.
        """
        return Submitter(self.key, self.arguments, self.results, self.plan.changed(options))

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> RunFuture[R]:
        """Submit a run; return its future once the broker has committed it.

        For sync code. Where an event loop runs it works, too, and stops that for some milliseconds, at most two
        seconds; `adelay` doesn't.

        Raises `TypeError` for arguments that do not fit, `ArgumentError` or `PayloadTooLarge` for one that
        cannot be sent; `ArgumentError`, but in tests, for a task without a key of its own that no worker could
        find, such as a function in a function; `SubmitTimedOut` where the broker cannot be reached;
        `SubmitRefused`, `ConnectionFailed`, `SettingsError`.
        """
        return submit_one(self._bound(args, kwargs))

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> RunFuture[R]:
        """Submit a run as `delay` does, in an event loop, and wait for a broker that cannot be reached."""
        return await asubmit_one(self._bound(args, kwargs))

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> BoundRun[R]:
        """Return a run that is not submitted yet, for `submit_many`; a delay counts from now.

        Raises what `delay` does of arguments.
        """
        return self._bound(args, kwargs)

    @overload
    def map(self: _Takes1[A, R], a: Iterable[A], /) -> list[RunFuture[R]]: ...
    @overload
    def map(self: _Takes2[A, B, R], a: Iterable[A], b: Iterable[B], /) -> list[RunFuture[R]]: ...
    @overload
    def map(
        self: _Takes3[A, B, C, R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /
    ) -> list[RunFuture[R]]: ...
    def map(self, *iterables: Iterable[Any]) -> list[RunFuture[Any]]:
        """Submit a run for each item, as the built-in `map` calls: `add.map([1, 2], [3, 4])`.

        See `submit_many`, which is also the way for more arguments, keywords, and options of each run.
        """
        return submit_many(self._each(iterables))

    @overload
    async def amap(self: _Takes1[A, R], a: Iterable[A], /) -> list[RunFuture[R]]: ...
    @overload
    async def amap(self: _Takes2[A, B, R], a: Iterable[A], b: Iterable[B], /) -> list[RunFuture[R]]: ...
    @overload
    async def amap(
        self: _Takes3[A, B, C, R], a: Iterable[A], b: Iterable[B], c: Iterable[C], /
    ) -> list[RunFuture[R]]: ...
    async def amap(self, *iterables: Iterable[Any]) -> list[RunFuture[Any]]:
        """Submit a run for each item as `map` does, in an event loop."""
        return await asubmit_many(self._each(iterables))

    def future(self, run_id: str | UUID) -> RunFuture[R]:
        """Return the future of a run of this task by its id, from wherever that comes.

        Raises `ArgumentError` for what is no UUID.
        """
        return RunFuture(checked_id(run_id), None, self.results)

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundRun[R]:
        if has_no_place(self.key) and current.overridden() is None:
            raise ArgumentError(
                f"task {self.key} is defined where no worker can find it: move it to the top of its module, or "
                "name it, @task(key=…), and see that its worker has it"
            )
        return BoundRun(self.plan.run(self.arguments.pack(args, kwargs)), self.results)

    def _each(self, iterables: tuple[Iterable[Any], ...]) -> Iterator[BoundRun[R]]:
        if self.plan.template.idempotency_key is not None:
            raise ArgumentError("idempotency_key: of many runs, each needs its own; use submit_many and bind")
        return (self._bound(args, {}) for args in zip(*iterables, strict=False))


class Task(Submitter[P, R]):
    """A function that can be called in place, or submitted to run on a worker."""

    def __init__(self, function: Callable[P, Any], options: TaskOptions | None = None) -> None:
        given = options or TaskOptions()
        functools.update_wrapper(cast("Callable[P, Any]", self), function)
        _check_kind(function)
        key = given.get("key")
        if key is None:
            key = default_key(function)
        serializer = _serializer(given.get("serializer"))
        arguments = Arguments(function, serializer)
        results = Results.of(function, serializer)
        super().__init__(key, arguments, results, task_plan(key, given, arguments.headers))
        self.function: Final = function
        all_tasks[key] = self
        self.is_async: Final = _is_async(function)
        self.pool: Final = _pool(given.get("pool"), is_async=self.is_async)
        self.fence: Final = given.get("fence", False)
        self._retry_on = _exception_types(given.get("retry_on", BaseException), "retry_on")
        self._no_retry_on = _exception_types(given.get("no_retry_on", ()), "no_retry_on")

    def __repr__(self) -> str:
        return f"<Task {self.key}>"

    @property
    def timeout(self) -> float | None:
        """Seconds that one execution may take; None: as long as it likes."""
        return self.plan.template.timeout

    def may_retry(self, error: BaseException) -> bool:
        """Say whether a run that has failed with this is to be retried, if it has retries left."""
        return isinstance(error, self._retry_on) and not isinstance(error, self._no_retry_on)


class SyncTask(Task[P, R]):
    """A task of a plain function: a worker runs it in a thread, or a process."""

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
        kind = AsyncTask[..., Any] if _is_async(function) else SyncTask[..., Any]
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

    Raises `ArgumentError` for an option that is out of range, and for a function that cannot be a task.
    """
    decorator = _Decorator(options)
    return decorator if function is None else decorator(function)


def _check_kind(function: Callable[..., Any]) -> None:
    if isinstance(function, Submitter):
        raise ArgumentError(f"{function!r} is a task already")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ArgumentError(f"{function!r} yields: a task returns its result")
    try:
        inspect.signature(function)
    except (TypeError, ValueError) as exc:
        raise ArgumentError(f"{function!r} cannot be a task: {exc}") from None


def _is_async(function: Callable[..., Any]) -> bool:
    """Say whether calling it gives a coroutine; an object may have an `async def __call__`."""
    called = getattr(function, "__call__", None)  # noqa: B004  (what it is matters, not whether)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _serializer(serializer: Serializer | None) -> Serializer | None:
    needed = ("content_type", "dumps", "loads")
    if serializer is not None and not all(hasattr(serializer, name) for name in needed):
        raise ArgumentError(f"serializer: {serializer!r} is none: it needs {', '.join(needed)}")
    return serializer


def _exception_types(types: Any, name: str) -> tuple[type[BaseException], ...]:
    several = cast("tuple[Any, ...]", types if isinstance(types, tuple) else (types,))
    if not all(isinstance(one, type) and issubclass(one, BaseException) for one in several):
        raise ArgumentError(f"{name}: an exception class, or a tuple of those")
    return several


def _pool(wanted: Pool | None, *, is_async: bool) -> Pool:
    """Return where a function executes. Raises `ArgumentError` for a pool that cannot execute its kind."""
    if wanted is None:
        return "async" if is_async else "thread"
    if wanted not in (("async",) if is_async else ("thread", "process")):
        kind = "a coroutine function" if is_async else "a plain function"
        raise ArgumentError(f"pool: {wanted!r} cannot execute {kind}")
    return wanted
