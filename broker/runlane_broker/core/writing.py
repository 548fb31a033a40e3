"""Writing, with what follows carried out in the order of the commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from ..storage.operations.base import Operation
from ..storage.store import Store

T = TypeVar("T")


async def write(store: Store, operation: Operation[T], carry_out: Callable[[T], None]) -> T:
    """Write, carry out what follows in the callback of the commit itself, and return the outcome.

    Raises `StoreUnavailable`, or what the operation met.
    """
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def done(outcome: Any) -> None:
        try:
            if not isinstance(outcome, Exception):
                carry_out(outcome)
        finally:
            resolve(future, outcome)

    store.submit(operation, done)
    return await future


def resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    """Answer who waits, if anybody still does: what is committed is committed."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
