"""The test kit's two faces: `broker()` for async tests, `sync_broker()` for the others."""

from __future__ import annotations

import asyncio
import copy
import functools
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from ..client import current, in_loop
from ..errors import ArgumentError, RunlaneError
from ..protocol.limits import MAX_KEYS
from ..protocol.states import FINAL, StateType
from ..tasks import Submitter, Task, all_tasks
from ..worker import Worker, current_run
from ..worker.worker import Lifespan
from .records import RunRecord, describe_mismatch, matches, named_arguments, record_of

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")

#: Seconds, of real time, that `drain` and `run_due` take at most.
TIMEOUT: Final = 60.0


def broker(
    *tasks: Task[..., Any],
    execute: bool = True,
    limit: int = 1,
    now: datetime | None = None,
    lifespan: Lifespan | None = None,
) -> AsyncTestBroker:
    """Return a broker for async tests: `async with broker(add, mul) as b:`.

    Within the block everything that is submitted in this process goes there, from whatever thread or loop, and
    waits until `drain` or `run_due` executes it: `tasks`, or where none is named all that are defined.

    `limit`: how many runs execute at once; with 1 their order is the broker's, always. `execute` False: nothing
    is ever executed. `now`: where the clock begins. `lifespan`: a worker's, entered by each `drain`. Raises
    `RunlaneError` where `runlane[broker]` is missing.
    """
    return AsyncTestBroker(tasks, execute=execute, limit=limit, now=now, lifespan=lifespan)


def sync_broker(
    *tasks: Task[..., Any],
    execute: bool = True,
    limit: int = 1,
    now: datetime | None = None,
    lifespan: Lifespan | None = None,
) -> SyncTestBroker:
    """Return a broker for sync tests: `with sync_broker(add, mul) as b:`. All else is as with `broker`."""
    return SyncTestBroker(tasks, execute=execute, limit=limit, now=now, lifespan=lifespan)


class BaseTestBroker:
    """What both flavours have in common. Nothing here waits for a task."""

    def __init__(
        self,
        tasks: Sequence[Task[..., Any]],
        *,
        execute: bool,
        limit: int,
        now: datetime | None,
        lifespan: Lifespan | None,
    ) -> None:
        if now is not None and now.utcoffset() is None:
            raise ArgumentError(f"now: {now} has no time zone")
        self._named = _by_key(tasks)
        self._execute = execute
        self._limit = limit
        self._lifespan = lifespan
        self._begin = now or datetime.now(UTC)
        self._engine: Engine | None = None
        self._override: current.Override | None = None
        self._raised: dict[str, BaseException] = {}
        self._thread = 0  # in which it was opened
        self._executing = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'open' if self._engine else 'closed'}>"

    # --- The clock ---------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of day, UTC: it stands still but for `advance` and `drain`."""
        return self._open().now

    def advance(self, seconds: float | timedelta) -> None:
        """Let this much time pass. Executes nothing: see `run_due`."""
        by = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        if by < timedelta(0):
            raise ArgumentError("advance: time does not go back")
        self._open().move_to(self._open().now + by)

    # --- What was submitted ------------------------------------------------------------------------------

    def runs(
        self, task: Submitter[..., Any] | str | None = None, state: StateType | str | None = None
    ) -> list[RunRecord]:
        """Return the runs, oldest first: all, those of a task (or a task key), those in a state."""
        key = task.key if isinstance(task, Submitter) else task
        return [
            self._record(run)
            for run in self._open().runs()
            if key in (None, run.task_key) and state in (None, run.state.type, run.state.name)
        ]

    def assert_submitted(
        self, task: Submitter[..., Any] | str, /, *args: Any, times: int | None = None, **parameters: Any
    ) -> list[RunRecord]:
        """Check that a task was submitted with these arguments, `times` or at least once; return those runs.

        Arguments that are not given here may have been anything. Raises `AssertionError`, which says what was
        submitted instead.
        """
        __tracebackhide__ = True
        wanted = {None: "at least once", 0: "never", 1: "once"}.get(times, f"{times} times")
        found, message = self._find(task, args, parameters, wanted)
        if not found if times is None else len(found) != times:
            raise AssertionError(message)
        return found

    def assert_not_submitted(self, task: Submitter[..., Any] | str, /, *args: Any, **parameters: Any) -> None:
        """Check that a task was never submitted with these arguments. Raises `AssertionError`."""
        __tracebackhide__ = True
        found, message = self._find(task, args, parameters, "never")
        if found:
            raise AssertionError(message)

    def _find(
        self, task: Submitter[..., Any] | str, args: Sequence[Any], parameters: dict[str, Any], wanted: str
    ) -> tuple[list[RunRecord], str]:
        key = task.key if isinstance(task, Submitter) else task
        arguments = named_arguments(self._tasks().get(key), args, parameters)
        runs = self.runs()
        found = [run for run in runs if run.task_key == key and matches(run, arguments)]
        return found, describe_mismatch(key, arguments, wanted, found, runs)

    # --- Opening and closing -----------------------------------------------------------------------------

    def _open(self) -> Engine:
        if self._engine is None:
            raise RunlaneError("the test broker is closed: use it within its `with` block")
        return self._engine

    def _enter(self) -> Engine:
        if self._engine is not None:
            raise RunlaneError("the test broker is open already")
        engine = _new_engine(self._begin)
        self._override = current.Override(engine.settings, lambda: engine.now, self._check_wait)
        return engine

    def _entered(self, engine: Engine) -> None:
        assert self._override is not None
        self._thread = threading.get_ident()
        self._engine = engine
        current.override(self._override)

    def _leave(self) -> Engine:
        engine = self._open()
        assert self._override is not None
        current.end_override(self._override)
        self._engine = None
        return engine

    def _check_wait(self, run_ids: Iterable[str]) -> None:
        """Refuse to wait, in the thread that would have to execute them, for runs that have not ended."""
        if self._executing or self._thread != threading.get_ident():
            return
        waited_for = set(run_ids)
        for run in self._open().runs():
            if run.id in waited_for and run.state.type not in FINAL:
                raise RunlaneError(
                    f"run {run.id} of {run.task_key} is not done, and nothing executes runs here until drain(): "
                    "call that first"
                )

    # --- Executing ---------------------------------------------------------------------------------------

    async def _work(self, *, to_the_end: bool, raise_errors: bool, timeout: float | None) -> list[RunRecord]:
        """Have a worker execute what is due; `to_the_end`: and what will be."""
        engine = self._open()
        if not self._execute:
            raise RunlaneError("this test broker executes nothing: it was made with `execute=False`")
        before = len(engine.ended())
        tasks = self._tasks()
        keys = tuple(tasks)
        due, next_due = engine.next_due(keys)
        if to_the_end and not due and next_due is not None:
            engine.move_to(next_due)
            due = True
        if due:
            self._executing = True
            try:
                await self._have_executed(tasks, to_the_end=to_the_end, timeout=timeout)
            finally:
                self._executing = False
        ended = engine.ended()[before:]
        by_id = {run.id: self._record(run) for run in engine.runs()}
        runs = [by_id[run_id] for run_id in ended]
        if raise_errors:
            _raise_first(runs)
        return runs

    async def _have_executed(
        self, tasks: dict[str, Task[..., Any]], *, to_the_end: bool, timeout: float | None
    ) -> None:
        engine = self._open()
        worker = Worker(
            [self._spied(task) for task in tasks.values()],
            limit=self._limit,
            settings=engine.settings,
            client_id="runlane.testing",
            lifespan=self._lifespan,
        )
        working = asyncio.create_task(worker.run(), name="runlane test worker")
        watching = asyncio.create_task(self._until_idle(tuple(tasks), to_the_end=to_the_end))
        try:
            await asyncio.wait((working, watching), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done() and not working.done():
                raise TimeoutError(self._late(timeout))
        except BaseException:
            worker.stop()  # the second time, below, ends it at once
            raise
        finally:
            watching.cancel()
            worker.stop()
            await asyncio.wait((working, watching))
            await engine.idle(())  # what it has given back is there again
        working.result()
        watching.result()

    async def _until_idle(self, keys: Sequence[str], *, to_the_end: bool) -> None:
        engine = self._open()
        while (next_due := await engine.idle(keys)) is not None and to_the_end:
            engine.move_to(next_due)

    def _late(self, seconds: float | None) -> str:
        """Say what keeps a drain from its end."""
        now = self._open().now
        lines = [f"not all runs have ended within {seconds:g} s (of real time); left are:"]
        lines += [f"  {run}" for run in self.runs() if run.state not in FINAL and run.due <= now]
        if self._limit == 1:
            lines.append("A task that waits for another one's result needs a broker with `limit=2`.")
        return "\n".join(lines)

    def _tasks(self) -> dict[str, Task[..., Any]]:
        tasks = self._named or dict(all_tasks)
        if len(tasks) > MAX_KEYS:
            raise RunlaneError(f"there are {len(tasks)} tasks, more than a worker takes: name those of the test")
        return tasks

    def _record(self, run: Any) -> RunRecord:
        return record_of(run, self._tasks().get(run.task_key), self._raised.get(run.id))

    def _spied(self, task: Task[..., Any]) -> Task[..., Any]:
        """Return the same task; what it raises is kept. Instead of in a process it executes in a thread."""
        spied = copy.copy(task)
        vars(spied)["function"] = _spy(task, self._raised)
        if task.pool == "process":
            vars(spied)["pool"] = "thread"
        return spied


class AsyncTestBroker(BaseTestBroker):
    """A broker for async tests; see `broker`. Async tasks execute in the loop that `drain` is called in."""

    async def __aenter__(self) -> Self:
        engine = self._enter()
        try:
            await asyncio.shield(asyncio.wrap_future(engine.start()))
        except BaseException:
            engine.stop()
            raise
        self._entered(engine)
        return self

    async def __aexit__(self, *_: object) -> None:
        client = current.with_settings(self._open().settings)
        engine = self._leave()
        if client is not None:
            await client.aclose()
        await asyncio.shield(asyncio.wrap_future(engine.stop()))

    async def drain(self, *, raise_errors: bool = False, timeout: float | None = TIMEOUT) -> list[RunRecord]:
        """Execute everything: what is due, and then again and again what comes due next, retries included.

        Time jumps from one to the next. Returns the runs that have ended, in that order. With `raise_errors` the
        first exception is raised that a run has failed with for good, once everything is done. `timeout`:
        seconds of real time. Raises `TimeoutError`.
        """
        return await self._work(to_the_end=True, raise_errors=raise_errors, timeout=timeout)

    async def run_due(self, *, raise_errors: bool = False, timeout: float | None = TIMEOUT) -> list[RunRecord]:
        """Execute what is due now, and what comes of that without time passing. All else is as with `drain`."""
        return await self._work(to_the_end=False, raise_errors=raise_errors, timeout=timeout)


class SyncTestBroker(BaseTestBroker):
    """A broker for sync tests; see `sync_broker`. Async tasks execute in an event loop of each `drain`'s own."""

    def __enter__(self) -> Self:
        engine = self._enter()
        try:
            engine.start().result()
        except BaseException:
            engine.stop()
            raise
        self._entered(engine)
        return self

    def __exit__(self, *_: object) -> None:
        self._leave().stop().result()

    def drain(self, *, raise_errors: bool = False, timeout: float | None = TIMEOUT) -> list[RunRecord]:
        """Execute everything; see `AsyncTestBroker.drain`."""
        return _run(self._work(to_the_end=True, raise_errors=raise_errors, timeout=timeout))

    def run_due(self, *, raise_errors: bool = False, timeout: float | None = TIMEOUT) -> list[RunRecord]:
        """Execute what is due now; see `AsyncTestBroker.run_due`."""
        return _run(self._work(to_the_end=False, raise_errors=raise_errors, timeout=timeout))


def _new_engine(now: datetime) -> Engine:
    try:
        from .engine import Engine  # noqa: PLC0415  (what the extra brings)
    except ImportError as exc:
        raise RunlaneError(f"runlane.testing needs the broker: install runlane[broker] ({exc})") from exc
    return Engine(now)


def _by_key(tasks: Iterable[Any]) -> dict[str, Task[..., Any]]:
    by_key: dict[str, Task[..., Any]] = {}
    for task in tasks:
        if not isinstance(task, Task):
            raise ArgumentError(f"{task!r} is no task: decorate the function with @task")
        named = cast("Task[..., Any]", task)
        if by_key.setdefault(named.key, named) is not named:
            raise ArgumentError(f"two tasks have the key {named.key}")
    return by_key


def _spy(task: Task[..., Any], raised: dict[str, BaseException]) -> Callable[..., Any]:
    function = task.function

    @functools.wraps(function)
    def spying(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            raised[current_run().id] = exc
            raise

    @functools.wraps(function)
    async def aspying(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            raised[current_run().id] = exc
            raise

    return aspying if task.is_async else spying


def _raise_first(runs: Iterable[RunRecord]) -> None:
    for run in runs:
        if run.state is StateType.FAILED:
            error = run.exception or run.error
            assert error is not None, "a failed run has an error"
            raise error


def _run(main: Coroutine[Any, Any, T]) -> T:
    """Run in an event loop of its own; where there is one already, in a thread of its own, too."""
    if not in_loop():
        return asyncio.run(main)
    outcome: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(main))
        except BaseException as exc:
            error.append(exc)

    thread = threading.Thread(target=run, name="runlane test drain")
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return outcome[0]
