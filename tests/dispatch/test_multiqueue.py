from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from runlane_broker.dispatch import MultiQueue, QueuedRun, TaskQueue

from .support import PROPERTY, make_run, never_busy


def filled(key: str, count: int) -> TaskQueue:
    queue = TaskQueue(key, max(1, count))
    rows = [make_run(f"{key}{n}", key, due=n) for n in range(count)]
    queue.apply_refill(queue.begin_refill(), rows, limit=count + 1, busy=never_busy)
    return queue


def make(counts: Mapping[str, int]) -> tuple[MultiQueue, dict[str, TaskQueue]]:
    queues = {key: filled(key, count) for key, count in counts.items()}
    return MultiQueue(frozenset(counts), queues), queues


def drain(multiqueue: MultiQueue) -> list[QueuedRun]:
    runs: list[QueuedRun] = []
    while (run := multiqueue.get_nowait()) is not None:
        runs.append(run)
    return runs


def test_keys_take_turns() -> None:
    multiqueue, _ = make({"a": 3, "b": 1, "c": 2})
    assert [run.id for run in drain(multiqueue)] == ["a0", "b0", "c0", "a1", "c1", "a2"]


def test_an_empty_one_is_not_ready() -> None:
    multiqueue, _ = make({"a": 0, "b": 0})
    assert (multiqueue.ready, bool(multiqueue), multiqueue.get_nowait()) == (False, False, None)


def test_the_turn_goes_on_where_it_was() -> None:
    multiqueue, queues = make({"a": 9, "b": 9})
    first = multiqueue.get_nowait()
    queues["a"].put(make_run("new", "a"))
    multiqueue.activate("a")  # it is listed already: that gives it no second turn
    second, third, fourth = (multiqueue.get_nowait() for _ in range(3))
    assert [run and run.task_key for run in (first, second, third, fourth)] == ["a", "b", "a", "b"]


def test_a_key_that_becomes_non_empty_is_served() -> None:
    multiqueue, queues = make({"a": 1, "b": 0})
    assert multiqueue.ready
    drain(multiqueue)
    queues["b"].put(make_run("b0", "b"))
    assert not multiqueue.ready
    multiqueue.activate("b")
    assert [run.id for run in drain(multiqueue)] == ["b0"]


def test_two_views_share_the_queues() -> None:
    queues = {key: filled(key, 2) for key in "abc"}
    left, right = MultiQueue(frozenset("ab"), queues), MultiQueue(frozenset("bc"), queues)
    runs = [left.get_nowait(), right.get_nowait(), left.get_nowait(), *drain(right), *drain(left)]
    assert [run and run.id for run in runs] == ["a0", "b0", "b1", "c0", "c1", "a1"]
    assert not left
    assert not right


def test_repr() -> None:
    multiqueue, _ = make({"a": 1, "b": 0, "c": 2})
    assert repr(multiqueue) == "<MultiQueue keys=3 listed=2>"


@PROPERTY
@given(
    counts=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 6), min_size=1),
    arrivals=st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abcdefgh")), max_size=10),
)
def test_each_of_k_non_empty_keys_is_served_within_k_gets(
    counts: dict[str, int], arrivals: list[tuple[int, str]]
) -> None:
    multiqueue, queues = make(counts)
    waiting: dict[str, int] = {key: 0 for key, count in counts.items() if count}
    most = 0
    for step in range(60):
        for number, (when, key) in enumerate(arrivals):
            if when == step and key in queues:
                was_empty = not queues[key]
                queues[key].size = 100
                queues[key].put(make_run(f"new{number}", key, due=100 + number))
                if was_empty:
                    multiqueue.activate(key)
                    waiting[key] = 0
        most = max(most, len(waiting))
        run = multiqueue.get_nowait()
        assert (run is None) == (not waiting)
        if run is None:
            continue
        for key in waiting:
            waiting[key] = 0 if key == run.task_key else waiting[key] + 1
            assert waiting[key] < most
        waiting = {key: gets for key, gets in waiting.items() if queues[key]}
    assert not any(queues.values())


class CountingQueues(dict[str, TaskQueue]):
    """Counts how often a queue is looked at: a cost that no machine changes."""

    lookups = 0

    def __getitem__(self, key: str) -> TaskQueue:
        self.lookups += 1
        return super().__getitem__(key)


def cost_of_gets(idle: int, busy: int, gets: int) -> int:
    names = [f"{n:05}" for n in range(idle + busy)]
    queues = CountingQueues({name: filled(name, gets if n >= idle else 0) for n, name in enumerate(names)})
    multiqueue = MultiQueue(frozenset(names), queues)
    queues.lookups = 0
    for _ in range(gets):
        assert multiqueue.get_nowait() is not None
    return queues.lookups


def test_the_cost_of_a_get_does_not_depend_on_the_number_of_keys() -> None:
    few = cost_of_gets(idle=1, busy=2, gets=50)
    assert cost_of_gets(idle=2_000, busy=2, gets=50) == few
    assert cost_of_gets(idle=10, busy=200, gets=50) == few


def test_dropping_empty_keys_is_paid_for_by_their_activation() -> None:
    queues = CountingQueues({f"{n:03}": filled(f"{n:03}", 1) for n in range(300)})
    multiqueue = MultiQueue(frozenset(queues), queues)
    for queue in queues.values():
        queue.get_nowait()
    queues.lookups = 0
    assert multiqueue.get_nowait() is None
    assert queues.lookups == 300
    assert multiqueue.get_nowait() is None
    assert queues.lookups == 300
