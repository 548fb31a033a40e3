from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane_broker.dispatch import RETRY_LANE, QueuedRun, RefillTicket, TaskQueue
from runlane_broker.dispatch.runs import rank_of

from .support import DUES, LANES, PRIORITIES, PROPERTY, make_run, never_busy, runs_in_order


def ids(queue: Iterable[QueuedRun]) -> list[str]:
    return [run.id for run in queue]


def refill(
    queue: TaskQueue,
    rows: list[QueuedRun],
    limit: int | None = None,
    busy: Callable[[str], bool] = never_busy,
) -> None:
    ticket = queue.begin_refill()
    assert queue.apply_refill(ticket, rows, limit=limit or queue.size, busy=busy)


def complete_queue(size: int = 4, rows: Iterable[QueuedRun] = ()) -> TaskQueue:
    queue = TaskQueue("a", size)
    refill(queue, list(rows), limit=size + 1)
    assert queue.complete
    return queue


def test_a_new_queue_knows_nothing_and_wants_a_refill() -> None:
    queue = TaskQueue("a", 4)
    assert (queue.complete, queue.wants_refill, len(queue), queue.get_nowait(), queue.peek()) == (
        False, True, 0, None, None,
    )  # fmt: skip
    queue.put(make_run("1"))  # the database may hold anything before it
    assert (len(queue), "1" in queue) == (0, False)


def test_a_window_holds_at_least_one_run() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        TaskQueue("a", 0)


def test_runs_leave_in_order_whatever_the_order_they_came_in() -> None:
    queue = complete_queue()
    for run in (make_run("2", due=2), make_run("1", due=1), make_run("0", priority=1, due=9)):
        queue.put(run)
    assert ids(queue) == ["0", "1", "2"]
    assert queue.peek() == queue.get_nowait() == make_run("0", priority=1, due=9)
    assert [run.id for run in (queue.get_nowait(), queue.get_nowait()) if run] == ["1", "2"]
    assert queue.complete


def test_the_same_run_again_changes_nothing_and_another_version_replaces_it() -> None:
    queue = complete_queue(rows=runs_in_order("1", "2"))
    queue.put(make_run("1"))
    assert ids(queue) == ["1", "2"]
    queue.put(make_run("1", due=7))
    assert ids(queue) == ["2", "1"]


def test_a_better_run_evicts_the_tail_and_marks_the_key_as_spilled() -> None:
    queue = complete_queue(2, runs_in_order("1", "2"))
    queue.put(make_run("0", priority=1))
    assert ids(queue) == ["0", "1"]
    assert not queue.complete


def test_a_worse_run_only_marks_a_full_key_as_spilled() -> None:
    queue = complete_queue(2, runs_in_order("1", "2"))
    queue.put(make_run("9", due=9))
    assert ids(queue) == ["1", "2"]
    assert not queue.complete


def test_a_spilled_window_takes_only_what_ranks_before_its_tail() -> None:
    queue = complete_queue(3, runs_in_order("1", "2", "3"))
    queue.put(make_run("9", due=9))
    queue.get_nowait()
    queue.put(make_run("8", due=8))  # "9" may be before it, or a thousand others
    assert ids(queue) == ["2", "3"]
    queue.put(make_run("2b", due=1))
    assert ids(queue) == ["2", "2b", "3"]


def test_a_run_whose_lease_failed_comes_back_in_its_place() -> None:
    queue = complete_queue(2, runs_in_order("1", "2"))
    run = queue.get_nowait()
    assert run is not None
    queue.put_back(run)
    assert ids(queue) == ["1", "2"]


def test_remove_says_whether_the_run_was_here() -> None:
    queue = complete_queue(rows=runs_in_order("1", "2"))
    assert (queue.remove("1"), queue.remove("1")) == (True, False)
    assert ids(queue) == ["2"]


def test_refill_is_wanted_at_a_quarter() -> None:
    queue = TaskQueue("a", 8)
    refill(queue, runs_in_order(*"12345678"))
    assert not queue.complete
    wanted: list[bool] = []
    while queue.get_nowait():
        wanted.append(queue.wants_refill)
    assert wanted == [False] * 5 + [True] * 3


def test_a_complete_queue_wants_no_refill() -> None:
    queue = complete_queue(rows=runs_in_order("1"))
    queue.get_nowait()
    assert (queue.complete, queue.wants_refill) == (True, False)


def test_a_stale_queue_wants_a_refill_even_if_it_is_full_and_keeps_working() -> None:
    queue = complete_queue(2, runs_in_order("1", "2"))
    queue.mark_stale()
    assert (queue.complete, queue.wants_refill, ids(queue)) == (False, True, ["1", "2"])
    refill(queue, [make_run("0", priority=1), *runs_in_order("1")])
    assert ids(queue) == ["0", "1"]
    assert not queue.wants_refill


def test_rows_after_the_last_row_read_leave_a_stale_window() -> None:
    queue = complete_queue(4, runs_in_order("5", "6"))
    queue.mark_stale()
    refill(queue, [make_run("0", priority=2), make_run("1", priority=1)], limit=2)
    assert ids(queue) == ["0", "1"]  # more rows may be between "1" and "5"
    assert not queue.complete


def test_coming_due_during_a_refill_wants_another() -> None:
    queue = TaskQueue("a", 2)
    ticket = queue.begin_refill()
    queue.mark_stale()
    queue.apply_refill(ticket, [], limit=2, busy=never_busy)
    assert (queue.complete, queue.wants_refill) == (False, True)
    refill(queue, [])
    assert queue.complete


@pytest.mark.parametrize(("rows", "complete"), [(1, True), (2, False)])
def test_a_refill_is_complete_when_it_read_less_than_its_limit(rows: int, complete: bool) -> None:
    queue = TaskQueue("a", 4)
    refill(queue, runs_in_order("1", "2")[:rows], limit=2)
    assert (len(queue), queue.complete) == (rows, complete)


def test_more_rows_than_the_window_holds_leave_it_spilled() -> None:
    queue = TaskQueue("a", 2)
    refill(queue, runs_in_order("1", "2", "3"), limit=5)
    assert (ids(queue), queue.complete) == (["1", "2"], False)


def test_only_one_refill_at_a_time() -> None:
    queue = TaskQueue("a")
    queue.begin_refill()
    assert not queue.wants_refill
    with pytest.raises(AssertionError):
        queue.begin_refill()


def test_rows_of_another_ticket_are_ignored() -> None:
    queue, other = TaskQueue("a"), TaskQueue("a")
    foreign = other.begin_refill()
    assert not queue.apply_refill(foreign, runs_in_order("1"), limit=9, busy=never_busy)
    own = queue.begin_refill()
    assert not queue.apply_refill(foreign, runs_in_order("1"), limit=9, busy=never_busy)
    queue.abandon_refill(foreign)
    assert queue.apply_refill(own, runs_in_order("1"), limit=9, busy=never_busy)
    assert not queue.apply_refill(own, runs_in_order("1", "2"), limit=9, busy=never_busy)
    assert ids(queue) == ["1"]


@pytest.mark.parametrize("how", ["pop", "remove", "touch"])
def test_a_refill_loses_to_what_happened_since(how: str) -> None:
    queue = TaskQueue("a", 4)
    refill(queue, [make_run("1")], limit=1)
    ticket = queue.begin_refill()
    if how == "pop":
        queue.get_nowait()
    elif how == "remove":
        queue.remove("1")
    else:
        queue.get_nowait()
        queue.touch("2")
    queue.apply_refill(ticket, runs_in_order("1", "2", "3"), limit=4, busy=never_busy)
    assert ids(queue) == (["3"] if how == "touch" else ["2", "3"])


def test_a_refill_ignores_what_is_reserved_or_in_flight() -> None:
    queue = TaskQueue("a", 4)
    refill(queue, runs_in_order("1", "2", "3"), busy={"2"}.__contains__)
    assert ids(queue) == ["1", "3"]


def test_a_run_added_during_a_refill_is_merged_even_if_the_rows_are_too_old_to_have_it() -> None:
    queue = TaskQueue("a", 4)
    ticket = queue.begin_refill()
    queue.put(make_run("2", due=1))
    assert queue.get_nowait() is None  # its place is not known yet
    queue.apply_refill(ticket, [make_run("1"), make_run("3", due=2)], limit=4, busy=never_busy)
    assert ids(queue) == ["1", "2", "3"]
    assert queue.complete


def test_the_version_added_during_a_refill_counts_and_not_the_row() -> None:
    queue = TaskQueue("a", 4)
    ticket = queue.begin_refill()
    queue.put(make_run("1", due=9))
    queue.apply_refill(ticket, runs_in_order("1", "2"), limit=4, busy=never_busy)
    assert ids(queue) == ["2", "1"]


def test_a_run_evicted_during_a_refill_comes_back_with_it() -> None:
    queue = TaskQueue("a", 1)
    refill(queue, [make_run("2", due=2)])
    queue.mark_stale()
    ticket = queue.begin_refill()
    queue.put(make_run("1", due=1))
    assert ids(queue) == ["1"]
    queue.get_nowait()
    queue.apply_refill(ticket, [], limit=1, busy=never_busy)
    assert ids(queue) == ["2"]


def test_an_arrival_that_was_removed_does_not_come_back() -> None:
    queue = TaskQueue("a", 4)
    ticket = queue.begin_refill()
    queue.put(make_run("1"))
    assert queue.remove("1")
    queue.apply_refill(ticket, [make_run("1")], limit=4, busy=never_busy)
    assert ids(queue) == []


def test_when_the_arrivals_overflow_the_order_is_known_up_to_the_best_one_dropped() -> None:
    queue = TaskQueue("a", 2)
    ticket = queue.begin_refill()
    for run in runs_in_order("0", "4", "2", "6")[::-1]:  # due 3 to 0
        queue.put(run)
    for due in (0, 1, 2, 3):
        queue.put(make_run(f"again-{due}", due=due, priority=0))
    # Kept are the two best; whatever ranks at or after the best one dropped waits for the next refill.
    rows = [make_run("row-0", due=0), make_run("row-9", due=9)]
    queue.apply_refill(ticket, rows, limit=9, busy=never_busy)
    assert ids(queue) == ["0", "again-0"]
    assert not queue.complete


def test_rows_after_the_horizon_are_not_taken() -> None:
    queue = TaskQueue("a", 3)
    ticket = queue.begin_refill()
    for run in runs_in_order("0", "1", "2", "3", "4"):
        queue.put(run)
    queue.remove("0")
    queue.remove("1")
    queue.apply_refill(ticket, [make_run("9", due=9)], limit=9, busy=never_busy)
    assert ids(queue) == ["2"]  # not "9": "3" and "4" are before it
    assert not queue.complete


def test_the_horizon_never_moves_back() -> None:
    queue = TaskQueue("a", 2)
    ticket = queue.begin_refill()
    first, second, dropped, *later = runs_in_order("0", "1", "2", "3", "4", "5")
    for run in (first, second, dropped):
        queue.put(run)
    queue.remove("0")
    queue.remove("1")
    for run in later:
        queue.put(run)
    queue.apply_refill(ticket, [], limit=9, busy=never_busy)
    assert (ids(queue), queue.complete) == ([], False)  # "2" is before them all


def test_a_short_read_does_not_shrink_the_window() -> None:
    queue = complete_queue(2, runs_in_order("1", "2"))
    queue.put(make_run("9", due=9))
    refill(queue, runs_in_order("1"), limit=1)
    assert (ids(queue), queue.complete) == (["1", "2"], False)


def test_an_abandoned_refill_is_wanted_again_and_loses_nothing() -> None:
    queue = TaskQueue("a", 4)
    ticket = queue.begin_refill()
    queue.put(make_run("1"))
    queue.abandon_refill(ticket)
    assert queue.wants_refill
    assert not queue.complete
    refill(queue, [make_run("1")])
    assert ids(queue) == ["1"]


def test_an_abandoned_refill_leaves_a_stale_queue_stale() -> None:
    queue = complete_queue(rows=runs_in_order("1"))
    queue.mark_stale()
    queue.abandon_refill(queue.begin_refill())
    assert (queue.complete, queue.wants_refill) == (False, True)


def test_a_window_that_the_database_knows_better_is_read_anew_and_so_is_what_is_being_read() -> None:
    queue = complete_queue(2, runs_in_order("1", "2"))
    queue.mark_stale()
    ticket = queue.begin_refill()
    queue.put(make_run("3", due=9))
    queue.reload()
    assert (ids(queue), queue.complete, queue.wants_refill) == ([], False, True)
    assert not queue.apply_refill(ticket, runs_in_order("1", "2"), limit=3, busy=never_busy)
    refill(queue, runs_in_order("2", "3"), limit=3)
    assert ids(queue) == ["2", "3"]


def test_repr() -> None:
    queue = TaskQueue("a", 2)
    assert repr(queue) == "<TaskQueue 'a' 0/2 spilled>"
    ticket = queue.begin_refill()
    queue.mark_stale()
    for run in runs_in_order("1", "2", "3"):
        queue.put(run)
    assert repr(queue) == "<TaskQueue 'a' 0/2 spilled stale refilling arrivals=2>"
    assert repr(ticket) == "<RefillTicket arrivals=2 touched=3 overflowed>"
    queue.abandon_refill(ticket)
    refill(queue, [])
    assert repr(queue) == "<TaskQueue 'a' 0/2 spilled stale>".replace(" spilled stale", " complete")


class QueueMachine(RuleBasedStateMachine):
    """A TaskQueue over a database in which everything that can happen happens while rows are being read."""

    def __init__(self) -> None:
        super().__init__()
        self.minted = 0
        self.dispatchable: dict[str, QueuedRun] = {}
        self.held: dict[str, QueuedRun] = {}
        self.ticket: RefillTicket | None = None
        self.rows: list[QueuedRun] | None = None
        self.limit = 1
        self.stale = False
        self.stale_since_begin = False

    @initialize(size=st.integers(1, 4))
    def create(self, size: int) -> None:
        self.queue = TaskQueue("a", size)

    def mint(self, priority: int, lane: int, due: int) -> QueuedRun:
        self.minted += 1
        return make_run(f"{self.minted:04}", priority=priority, lane=lane, due=due)

    @rule(priority=PRIORITIES, lane=LANES, due=DUES)
    def submit(self, priority: int, lane: int, due: int) -> None:
        run = self.mint(priority, lane, due)
        self.dispatchable[run.id] = run
        self.queue.put(run)

    @precondition(lambda self: self.dispatchable)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.dispatchable)))
        self.queue.put(self.dispatchable[run_id])

    @rule(priority=PRIORITIES, due=DUES)
    def come_due(self, priority: int, due: int) -> None:
        run = self.mint(priority, 1, due)
        self.dispatchable[run.id] = run
        self.queue.mark_stale()
        self.stale = self.stale_since_begin = True

    @rule()
    def pop(self) -> None:
        peeked = self.queue.peek()
        run = self.queue.get_nowait()
        assert run == peeked
        if run is None:
            assert self.stale or not self.queue.complete or not self.dispatchable
            return
        if not self.stale:
            assert run == min(self.dispatchable.values(), key=rank_of)
        self.held[run.id] = self.dispatchable.pop(run.id)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["put_back", "finish", "retry"]))
    def let_go(self, data: st.DataObject, how: str) -> None:
        run = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        if how == "finish":
            self.queue.touch(run.id)
        elif how == "put_back":
            self.dispatchable[run.id] = run
            self.queue.put_back(run)
        else:
            retry = make_run(run.id, priority=run.priority, lane=RETRY_LANE, due=run.due + 1)
            self.dispatchable[run.id] = retry
            self.queue.touch(run.id)
            self.queue.put(retry)

    @precondition(lambda self: self.dispatchable)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.dispatchable)))
        del self.dispatchable[run_id]
        in_window = run_id in self.queue
        assert self.queue.remove(run_id) >= in_window
        assert run_id not in self.queue

    @precondition(lambda self: self.ticket is None)
    @rule()
    def begin(self) -> None:
        self.ticket, self.rows = self.queue.begin_refill(), None
        self.stale_since_begin = False

    @precondition(lambda self: self.ticket is not None)
    @rule(limit=st.integers(1, 6))
    def read(self, limit: int) -> None:
        # What is held looks dispatchable in the database until its lease is committed.
        rows = sorted([*self.dispatchable.values(), *self.held.values()], key=rank_of)
        self.rows, self.limit = rows[:limit], limit

    @precondition(lambda self: self.rows is not None)
    @rule()
    def apply(self) -> None:
        assert self.ticket is not None
        assert self.rows is not None
        applied = self.queue.apply_refill(self.ticket, self.rows, limit=self.limit, busy=self.held.__contains__)
        assert applied
        self.ticket = self.rows = None
        self.stale = self.stale_since_begin

    @precondition(lambda self: self.ticket is not None)
    @rule()
    def abandon(self) -> None:
        assert self.ticket is not None
        self.queue.abandon_refill(self.ticket)
        self.ticket = self.rows = None

    @invariant()
    def the_window_is_the_beginning_of_the_order(self) -> None:
        window = list(self.queue)
        order = sorted(self.dispatchable.values(), key=rank_of)
        assert len(window) == len(self.queue) <= self.queue.size
        if self.stale:
            assert not self.queue.complete
            assert window == [run for run in order if run.id in self.queue]
        else:
            assert window == order[: len(window)]
        if self.queue.complete:
            assert window == order
        assert self.queue.wants_refill <= (self.ticket is None)
        if self.stale and self.ticket is None:
            assert self.queue.wants_refill

    def teardown(self) -> None:
        """Whatever happened, all that is dispatchable comes out, in order, each once."""
        if not hasattr(self, "queue"):
            return
        if self.ticket is not None:
            self.abandon()
        size = self.queue.size
        expected = sorted(self.dispatchable.values(), key=rank_of)
        if self.queue.wants_refill:
            refill(self.queue, expected[:size])
        popped: list[QueuedRun] = []
        for _ in range(2 * len(expected) + 2):
            run = self.queue.get_nowait()
            if run is not None:
                popped.append(run)
            if self.queue.wants_refill:
                gone = set(popped)
                refill(self.queue, [run for run in expected if run not in gone][:size])
        assert popped == expected
        assert self.queue.complete


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(PROPERTY, max_examples=200, stateful_step_count=40)
