"""Runs on their way from a task to its futures: one, or many in batches of which a few are under way.

The iterable of many may be as long as one likes: beside the futures that are returned, memory holds no more of
it than those batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from .client import Client, client_here, client_like, in_loop, may_block, run_sync, start_sync, wait_for
from .errors import ArgumentError, SomeRefused, SubmitRefused, SubmitTimedOut
from .futures import RunFuture
from .protocol.messages import NewRun, SubmittedRun
from .serializers import Results

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: Runs of one batch, at most.
BATCH_RUNS: Final = 500
#: Bytes of parameters from which on a batch is full.
BATCH_BYTES: Final = 512 * 1024
#: Batches that wait for their confirmation while the next is read.
BATCHES_UNDER_WAY: Final = 4
#: Seconds for which a sync submit may stop an event loop.
IN_LOOP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class BoundRun(Generic[R_co]):
    """A task with its arguments, ready to be submitted: once, for it has its id already."""

    run: NewRun
    results: Results


def submit_one(bound: BoundRun[R]) -> RunFuture[R]:
    """Submit a run and wait until the broker has committed it; in an event loop, only briefly.

    Raises `SubmitRefused`, `SubmitTimedOut`, `ConnectionFailed`, `ClientClosed`, `SettingsError`.
    """
    if in_loop():
        submitting = _submit_in_time((bound,), client_here(), IN_LOOP_SECONDS)
    else:
        submitting = _submit_in_time((bound,))
    return _unless_refused(run_sync(submitting))


async def asubmit_one(bound: BoundRun[R]) -> RunFuture[R]:
    """Submit a run and wait until the broker has committed it, however long that takes."""
    return _unless_refused(await _submit((bound,), client_like(None)))


def submit_many(runs: Iterable[BoundRun[R]], *, return_exceptions: bool = False) -> list[RunFuture[R]]:
    """Submit runs (see `Task.bind`) and return their futures, in order, once all are committed.

    Pipelined, and not atomic. Where some are refused the others are submitted all the same, and `SomeRefused`
    is raised, which has all the futures; with `return_exceptions` they are just returned, and those of refused
    runs have `refused` set. Where `runs` itself raises, what has been submitted by then stays. Raises besides:
    `ArgumentError` for what is no bound run, `SubmitTimedOut`, `ConnectionFailed`, `ClientClosed`,
    `SettingsError`, and `WouldBlock` in an event loop.
    """
    may_block("submit_many()", "await asubmit_many(…)")
    futures: list[RunFuture[R]] = []
    under_way: deque[Any] = deque()
    try:
        for batch in _batches(runs):
            under_way.append(start_sync(partial(_submit_in_time, batch)))
            if len(under_way) > BATCHES_UNDER_WAY:
                futures += wait_for(under_way.popleft())
        while under_way:
            futures += wait_for(under_way.popleft())
    finally:
        for submitting in under_way:
            submitting.cancel()
    return futures if return_exceptions else _unless_some_refused(futures)


async def asubmit_many(runs: Iterable[BoundRun[R]], *, return_exceptions: bool = False) -> list[RunFuture[R]]:
    """Submit runs as `submit_many` does, in an event loop, and however long it takes."""
    client = client_like(None)
    futures: list[RunFuture[R]] = []
    under_way: deque[asyncio.Task[list[RunFuture[R]]]] = deque()
    try:
        for batch in _batches(runs):
            under_way.append(asyncio.create_task(_submit(batch, client)))
            await asyncio.sleep(0)  # reading and packing must not keep the loop to itself
            if len(under_way) > BATCHES_UNDER_WAY:
                futures += await under_way.popleft()
        while under_way:
            futures += await under_way.popleft()
    finally:
        for submitting in under_way:
            submitting.cancel()
    return futures if return_exceptions else _unless_some_refused(futures)


async def _submit_in_time(
    batch: Sequence[BoundRun[R]], like: Client | None = None, at_most: float | None = None
) -> list[RunFuture[R]]:
    """Submit from sync code: nobody else bounds the waiting."""
    client = client_like(like)
    limits = [seconds for seconds in (client.submit_timeout, at_most) if seconds is not None]
    seconds = min(limits, default=None)
    try:
        async with asyncio.timeout(seconds):
            return await _submit(batch, client)
    except TimeoutError:
        raise SubmitTimedOut(
            f"the broker at {client.settings.url} has confirmed nothing within {seconds:g} s"
            + (f" (last try: {client.trouble})" if client.trouble else "")
            + ("; in an event loop, use `await task.adelay(…)`" if at_most else "")
        ) from None


async def _submit(batch: Sequence[BoundRun[R]], client: Client) -> list[RunFuture[R]]:
    answers = await client.submit_each(bound.run for bound in batch)
    return [_future(bound, answer, client) for bound, answer in zip(batch, answers, strict=True)]


def _future(bound: BoundRun[R], answer: SubmittedRun, client: Client) -> RunFuture[R]:
    if answer.error is not None:
        return RunFuture(bound.run.id, client, bound.results, refused=SubmitRefused.of(answer.error))
    # A run that was submitted twice over a broken connection is answered with `created: false`, and its own id.
    created = answer.created or answer.id == bound.run.id
    return RunFuture(answer.id, client, bound.results, created=created)


def _batches(runs: Iterable[BoundRun[R]]) -> Iterator[list[BoundRun[R]]]:
    batch: list[BoundRun[R]] = []
    size = 0
    for bound in runs:
        if not isinstance(cast("object", bound), BoundRun):
            raise ArgumentError(f"{bound!r} is no run to be submitted: `task.bind(…)` returns one")
        batch.append(bound)
        size += len(bytes(bound.run.parameters))
        if len(batch) >= BATCH_RUNS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _unless_refused(futures: Sequence[RunFuture[R]]) -> RunFuture[R]:
    (future,) = futures
    if future.refused is not None:
        raise future.refused
    return future


def _unless_some_refused(futures: list[RunFuture[R]]) -> list[RunFuture[R]]:
    refusals = [(index, future.refused) for index, future in enumerate(futures) if future.refused is not None]
    if refusals:
        raise SomeRefused(futures, [index for index, _ in refusals], refusals[0][1])
    return futures
