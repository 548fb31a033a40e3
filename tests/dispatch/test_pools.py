"""Work pools: strictly by priority, within limits, beside task keys."""

from __future__ import annotations

import pytest

from runlane_broker.dispatch import Dispatcher, PoolSettings, QueueSettings, Reservation

from .support import make_run

HIGH, LOW = "queue p 1", "queue p 2"


def settings(
    *, high: int | None = None, low: int | None = None, limit: int | None = None, swapped: bool = False,
    paused: str = "",
) -> PoolSettings:  # fmt: skip
    queues = (
        QueueSettings(HIGH, 2 if swapped else 0, paused == "high", high),
        QueueSettings(LOW, 1, paused == "low", low),
    )
    return PoolSettings("p", queues, paused == "pool", limit)


class Rig:
    """A dispatcher whose windows are complete, with runs of both queues and of a task key."""

    def __init__(self, given: PoolSettings, slots: int = 100, keys: tuple[str, ...] = (HIGH, LOW)) -> None:
        self.dispatcher = Dispatcher()
        self.dispatcher.subscribe("s", 1, keys, slots, pools=[given])
        for key, ticket, limit in self.dispatcher.refills_wanted():
            self.dispatcher.apply_refill(key, ticket, [], limit)

    def put(self, key: str, count: int) -> None:
        for i in range(count):
            self.dispatcher.enqueue(make_run(f"{key}-{i}", key, due=i))

    def assigned(self) -> list[Reservation]:
        return self.dispatcher.assign()

    def keys(self) -> list[str]:
        return [reservation.run.task_key for reservation in self.assigned()]


def test_the_first_queue_is_emptied_before_the_second() -> None:
    rig = Rig(settings())
    rig.put(LOW, 2)
    rig.put(HIGH, 3)
    assert rig.keys() == [HIGH] * 3 + [LOW] * 2


def test_a_pool_takes_turns_with_task_keys_as_one_of_them() -> None:
    rig = Rig(settings(), keys=(HIGH, LOW, "k"))
    rig.put("k", 3)
    rig.put(LOW, 2)
    rig.put(HIGH, 2)
    assert rig.keys() == ["k", HIGH, "k", HIGH, "k", LOW, LOW]


def test_a_changed_priority_counts_at_once() -> None:
    rig = Rig(settings(), slots=1)
    rig.put(HIGH, 2)
    rig.put(LOW, 2)
    assert rig.keys() == [HIGH]
    rig.dispatcher.set_pool(settings(swapped=True))
    rig.dispatcher.set_limit("s", 4)
    assert rig.keys() == [LOW, LOW, HIGH]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (settings(high=1), [HIGH, LOW, LOW]),
        (settings(low=1), [HIGH, HIGH, LOW]),
        (settings(limit=3), [HIGH, HIGH, LOW]),
        (settings(high=0, limit=1), [LOW]),
        (settings(limit=0), []),
        (settings(paused="high"), [LOW, LOW]),
        (settings(paused="low"), [HIGH, HIGH]),
        (settings(paused="pool"), []),
    ],
)
def test_limits_and_pauses_hold_back_what_they_are_about(given: PoolSettings, expected: list[str]) -> None:
    rig = Rig(given)
    rig.put(HIGH, 2)
    rig.put(LOW, 2)
    assert rig.keys() == expected


@pytest.mark.parametrize("before", [settings(limit=0), settings(paused="pool"), settings(high=0, low=0)])
def test_what_is_opened_is_served_at_once(before: PoolSettings) -> None:
    rig = Rig(before)
    rig.put(HIGH, 1)
    rig.put(LOW, 1)
    assert rig.keys() == []
    rig.dispatcher.set_pool(settings())
    assert rig.keys() == [HIGH, LOW]


def test_a_committed_end_lets_one_more_run_go() -> None:
    rig = Rig(settings(high=1))
    rig.put(HIGH, 3)
    (first,) = rig.assigned()
    assert rig.dispatcher.confirm(first)
    assert rig.dispatcher.release("s", first.run.id)
    assert rig.keys() == [], "its end is not in the database yet"
    rig.dispatcher.free_slot("p", HIGH)
    assert rig.keys() == [HIGH]


def test_a_run_of_a_queue_that_nobody_serves_frees_a_slot_of_the_pool() -> None:
    rig = Rig(settings(limit=1), keys=(HIGH,))
    rig.put(HIGH, 2)
    (refused,) = rig.assigned()
    rig.dispatcher.abort(refused)
    rig.dispatcher.shut_pool(HIGH)
    assert rig.keys() == [], "a refusal is no reason to try again"
    rig.dispatcher.free_slot("p", LOW)
    assert rig.keys() == [HIGH]


@pytest.mark.parametrize("limit", [None, 1, 5])
def test_a_refused_lease_shuts_the_queue_until_a_slot_is_free(limit: int | None) -> None:
    rig = Rig(settings(high=limit), slots=1)
    rig.put(HIGH, 2)
    rig.put(LOW, 1)
    (refused,) = rig.assigned()
    rig.dispatcher.abort(refused)
    rig.dispatcher.shut_queue(HIGH)
    assert rig.keys() == [LOW], "the next queue does not wait for it"
    assert rig.dispatcher.queue(HIGH) is not None
    rig.dispatcher.set_limit("s", 3)
    rig.dispatcher.free_slot("p", HIGH)
    assert rig.keys()[:1] == [HIGH]


def test_an_aborted_reservation_gives_its_slot_back() -> None:
    rig = Rig(settings(high=1, limit=1))
    rig.put(HIGH, 2)
    (taken,) = rig.assigned()
    rig.dispatcher.abort(taken, requeue=False)
    assert rig.keys() == [HIGH]


def test_of_a_deleted_queue_nothing_is_given_and_its_runs_take_no_slot_of_the_pool() -> None:
    rig = Rig(settings(limit=1))
    rig.put(HIGH, 2)
    rig.put(LOW, 1)
    (taken,) = rig.assigned()
    assert rig.dispatcher.confirm(taken)
    rig.dispatcher.set_pool(PoolSettings("p", (QueueSettings(LOW, 1),), limit=1))
    assert not rig.dispatcher.queue(HIGH), "who ends one of its runs does not know that it was here"
    rig.put(HIGH, 2)
    assert rig.keys() == [LOW]


def test_two_key_sets_share_a_pool() -> None:
    rig = Rig(settings(limit=3), slots=2)
    rig.dispatcher.subscribe("t", 1, [LOW], 5, pools=[settings(limit=3)])
    rig.put(HIGH, 2)
    rig.put(LOW, 5)
    assert len(rig.keys()) == 3
    rig.dispatcher.end_session("t")
    assert set(rig.dispatcher.served_queues) == {HIGH, LOW}
    rig.dispatcher.end_session("s")
    assert not rig.dispatcher.served_pools
    rig.dispatcher.set_pool(settings())
    rig.dispatcher.free_slot("p", HIGH)
    rig.dispatcher.shut_queue(HIGH)
    rig.dispatcher.shut_pool(HIGH)
    assert not rig.dispatcher.served_pools
