"""Reads for a producer that leaves while they are under way."""

from __future__ import annotations

import asyncio

import pytest

from runlane_broker.errors import StoreUnavailable
from runlane_broker.gateway.submission import _to_its_end


@pytest.mark.parametrize("fails", [False, True])
def test_a_read_that_nobody_waits_for_any_more_is_not_cut_off(fails: bool) -> None:
    """A driver's connection in the middle of a read could only be thrown away."""

    async def main() -> None:
        asked, answered = asyncio.Event(), asyncio.Event()
        ended = False

        async def read() -> None:
            nonlocal ended
            asked.set()
            await answered.wait()
            ended = True
            if fails:
                raise StoreUnavailable("locked")

        waiting = asyncio.create_task(_to_its_end(read()))
        await asked.wait()
        waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
        answered.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended

    asyncio.run(main())
