"""Windows that leave runs out because a queue with a filter is full: when they are read again."""

from __future__ import annotations

from runlane_broker.core.due import DueClock
from runlane_broker.core.held_back import LOOK_AGAIN, HeldBack
from runlane_broker.dispatch import Dispatcher

from ..support import START, FakeClock, run


class World:
    """A session that serves one key, whose window is complete."""

    def __init__(self) -> None:
        clock = FakeClock()
        self.dispatcher = Dispatcher()
        self.due = DueClock(clock, lambda keys: None)
        self.held_back = HeldBack(clock, self.dispatcher, self.due)
        self.dispatcher.subscribe("s", 1, ["a"], 1)
        assert self.read()

    def read(self) -> bool:
        """Read what is wanted; say whether anything was."""
        wanted = self.dispatcher.refills_wanted()
        for key, ticket, limit in wanted:
            self.dispatcher.apply_refill(key, ticket, [], limit)
        return bool(wanted)


def test_a_window_is_read_again_once_when_a_slot_is_free() -> None:
    async def main() -> None:
        it = World()
        it.held_back.reading()("a")
        assert not it.read()
        assert it.due.expects("a", START + LOOK_AGAIN), "nobody may say anything"
        it.held_back.release()
        assert it.read()
        it.held_back.release()
        assert not it.read(), "it may leave out nothing now"
        it.due.stop()

    run(main())


def test_what_was_read_before_a_slot_came_free_is_read_again() -> None:
    async def main() -> None:
        it = World()
        left_out = it.held_back.reading()
        it.held_back.release()
        left_out("a")
        assert it.read()
        assert not it.due.expects("a", START + LOOK_AGAIN)

    run(main())


def test_a_key_that_nobody_serves_any_more_is_not_looked_at() -> None:
    async def main() -> None:
        it = World()
        left_out = it.held_back.reading()
        it.dispatcher.end_session("s")
        left_out("a")
        assert not it.due.expects("a", START + LOOK_AGAIN)

    run(main())
