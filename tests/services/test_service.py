"""The skeleton of all services, and what is shown of them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from runlane_broker.core.services import ServiceBoard
from runlane_broker.errors import StoreUnavailable
from runlane_broker.services.service import JITTER, SHORTEST_SLEEP, Counts, Service, Services

from ..support import START, FakeClock, run


class Counting(Service):
    """Does what it is told, and counts."""

    name = "counting"

    def __init__(self, clock: FakeClock | None = None, *, interval: float = 1.0, enabled: bool = True) -> None:
        super().__init__(interval, clock or FakeClock(), enabled=enabled)
        self.error: Exception | None = None
        self.ran = 0
        self.hint: float | None = None
        self.passed = asyncio.Event()

    async def run_once(self) -> Counts:
        self.ran += 1
        self.passed.set()
        self._next = self.hint
        if self.error is not None:
            raise self.error
        return {"things": 2}


def test_a_run_is_noted_with_what_it_did() -> None:
    async def main() -> None:
        clock = FakeClock()
        service = Counting(clock)
        await service.attempt()
        clock.advance(3)
        await service.attempt()
        state = service.state
        assert (state.runs, state.errors, state.last_run) == (2, 0, START + 3_000_000)
        assert (state.counts, state.totals) == ({"things": 2}, {"things": 4})

    run(main())


@pytest.mark.parametrize(("error", "level"), [(StoreUnavailable("locked"), "WARNING"), (KeyError("x"), "ERROR")])
def test_an_error_is_counted_and_backed_off_and_never_fatal(
    error: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        service = Counting()
        service.error = error
        pauses: list[float] = []
        with caplog.at_level(logging.WARNING):
            for _ in range(10):
                await service.attempt()
                pauses.append(service.pause())
        assert [record.levelname for record in caplog.records] == [level] * 10
        assert (service.state.errors, service.state.runs) == (10, 10)
        assert service.state.last_error is not None
        assert type(error).__name__ in service.state.last_error
        for failures, pause in enumerate(pauses, 1):
            expected = min(2.0**failures, 60.0)
            assert expected * (1 - JITTER) <= pause <= expected * (1 + JITTER)
        service.error = None
        await service.attempt()
        assert service.pause() <= 1 + JITTER

    run(main())


def test_an_interval_that_is_longer_than_the_longest_wait_stays() -> None:
    async def main() -> None:
        service = Counting(interval=300.0)
        service.error = KeyError("x")
        await service.attempt()
        assert service.pause() >= 300.0 * (1 - JITTER)

    run(main())


def test_starting_and_stopping_twice_is_harmless() -> None:
    async def main() -> None:
        board = ServiceBoard()
        service, off = Counting(), Counting(enabled=False)
        off.state.name = "off"
        services = Services((service, off), board)
        services.start()
        services.start()
        assert {state.name: (state.enabled, state.running) for state in board} == {
            "counting": (True, True),
            "off": (False, False),
        }
        await services.stop()
        await services.stop()
        assert not service.state.running

    run(main())


def test_a_pass_that_knows_when_there_is_something_to_do_is_followed_in_time_and_never_later_than_usual() -> None:
    async def main() -> None:
        service = Counting(interval=10.0)
        await service.attempt()
        assert service.pause() >= 10.0 * (1 - JITTER)
        for hint, at_least, at_most in ((3.0, 3.0, 3.3), (0.0, SHORTEST_SLEEP, 0.1), (1000.0, 9.0, 11.0)):
            service.hint = hint
            await service.attempt()
            assert at_least <= service.pause() <= at_most
        service.error = KeyError("x")
        await service.attempt()
        assert service.pause() >= 10.0, "what the pass before has known does not count after one that failed"

    run(main())


def test_a_service_is_woken() -> None:
    async def main() -> None:
        service = Counting(interval=3600.0)
        service.start()
        for passes in (1, 2):
            service.wake()
            await service.passed.wait()
            service.passed.clear()
            assert service.ran == passes
        await service.stop()

    run(main())
