from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane_broker.dispatch import RETRY_LANE, Dispatcher, Place, PlaceKind, QueuedRun, Reservation
from runlane_broker.dispatch.group import Group, Session
from runlane_broker.dispatch.multiqueue import MultiQueue
from runlane_broker.dispatch.places import Places

from .support import PROPERTY, make_run, runs_in_order


def settle(dispatcher: Dispatcher, rows: list[QueuedRun] | None = None) -> None:
    """Answer every refill from `rows`."""
    for key, ticket, limit in dispatcher.refills_wanted():
        due = [run for run in rows or [] if run.task_key == key]
        dispatcher.apply_refill(key, ticket, due[:limit], limit)


def make(*sessions: tuple[str, str, int], window_size: int = 4, rows: list[QueuedRun] | None = None) -> Dispatcher:
    """A dispatcher with connected sessions (id, keys as letters, limit), whose windows know the rows."""
    dispatcher = Dispatcher(window_size)
    for session_id, keys, limit in sessions:
        dispatcher.subscribe(session_id, 1, keys, limit)
    settle(dispatcher, rows)
    return dispatcher


def pairs(reservations: list[Reservation]) -> list[tuple[str, str]]:
    return [(reservation.run.id, reservation.session_id) for reservation in reservations]


def window(dispatcher: Dispatcher, key: str = "a") -> list[str]:
    queue = dispatcher.queue(key)
    assert queue is not None
    return [run.id for run in queue]


def assign_one(dispatcher: Dispatcher) -> Reservation:
    (reservation,) = dispatcher.assign()
    return reservation


# Assigning


def test_a_run_goes_from_the_window_to_a_session_and_away() -> None:
    dispatcher = make(("s", "a", 2))
    dispatcher.enqueue(make_run("1"))
    assert dispatcher.place_of("1") == Place(PlaceKind.QUEUED, "a")
    reservation = assign_one(dispatcher)
    assert reservation == Reservation(make_run("1"), "s", 1)
    assert dispatcher.place_of("1") == Place(PlaceKind.RESERVED, "a", "s")
    assert (dispatcher.free_slots("s"), dispatcher.in_flight("s")) == (1, ())
    assert dispatcher.confirm(reservation)
    assert dispatcher.place_of("1") == Place(PlaceKind.IN_FLIGHT, "a", "s")
    assert (dispatcher.free_slots("s"), dispatcher.in_flight("s")) == (1, ("1",))
    assert dispatcher.release("s", "1")
    assert (dispatcher.free_slots("s"), dispatcher.in_flight("s")) == (2, ())
    assert dispatcher.place_of("1") is None
    assert dispatcher.assign() == []


def test_the_session_with_the_most_free_slots_is_next() -> None:
    rows = runs_in_order("1", "2", "3", "4", "5", "6")
    dispatcher = make(("small", "a", 1), ("big", "a", 3), ("middle", "a", 2), window_size=9, rows=rows)
    assert pairs(dispatcher.assign()) == [
        ("1", "big"),  # 3 of 3 free
        ("2", "middle"),  # 2 of 2, as "big" has; never served, so before it
        ("3", "big"),
        ("4", "small"),  # each has one free slot now
        ("5", "middle"),
        ("6", "big"),
    ]


def test_among_equals_the_least_recently_served_is_next() -> None:
    dispatcher = make(("x", "a", 1), ("y", "a", 1), ("z", "a", 1))
    served: list[str] = []
    for n in range(7):
        dispatcher.enqueue(make_run(str(n)))
        reservation = assign_one(dispatcher)
        served.append(reservation.session_id)
        assert dispatcher.confirm(reservation)
        dispatcher.release(reservation.session_id, str(n))
    assert served == ["x", "y", "z", "x", "y", "z", "x"]


def test_sessions_of_different_key_sets_compete_by_free_slots() -> None:
    dispatcher = make(("ab", "ab", 1), ("bc", "bc", 3), ("c", "c", 2))
    for run_id in ("b1", "b2", "c1", "c2", "c3"):
        dispatcher.enqueue(make_run(run_id, run_id[0]))
    assert pairs(dispatcher.assign()) == [
        ("b1", "bc"),
        ("c1", "c"),
        ("c2", "bc"),
        ("b2", "ab"),
        ("c3", "c"),
    ]


def test_a_run_whose_key_nobody_serves_is_left_to_the_database() -> None:
    dispatcher = make(("s", "b", 1))
    dispatcher.enqueue(make_run("1", "a"))
    assert (dispatcher.assign(), dispatcher.place_of("1"), dispatcher.queue("a")) == ([], None, None)


def test_a_window_has_its_own_size() -> None:
    dispatcher = Dispatcher(2, {"b": 5})
    dispatcher.subscribe("s", 1, "ab", 1)
    assert sorted((key, limit) for key, _, limit in dispatcher.refills_wanted()) == [("a", 2), ("b", 5)]


def test_nothing_is_assigned_beyond_the_limit_or_to_limit_zero() -> None:
    dispatcher = make(("s", "a", 0), rows=runs_in_order("1", "2", "3"))
    assert dispatcher.assign() == []
    dispatcher.set_limit("s", 2)
    assert len(dispatcher.assign()) == 2
    dispatcher.set_limit("s", 1)  # takes nothing away
    assert dispatcher.free_slots("s") == 0
    assert dispatcher.assign() == []
    dispatcher.set_limit("s", 3)
    assert len(dispatcher.assign()) == 1


def test_runs_are_given_ahead_only_when_nobody_is_free_for_them() -> None:
    dispatcher = make(("s", "a", 1), ("t", "a", 1), ("u", "ab", 0), rows=runs_in_order(*"1234567"), window_size=9)
    dispatcher.set_limit("s", 0, ahead=2)
    dispatcher.set_limit("u", 0, ahead=1)
    assert dispatcher.has_free_slot("a")
    assert pairs(dispatcher.assign()) == [("1", "t"), ("2", "s"), ("3", "u"), ("4", "s")]
    assert (dispatcher.reserved("s"), dispatcher.free_slots("s"), dispatcher.reserved("x")) == (2, 0, 0)
    assert not dispatcher.has_free_slot("a")
    assert not dispatcher.has_free_slot("z")
    dispatcher.set_limit("s", 2)
    assert dispatcher.assign() == []
    dispatcher.set_limit("s", 3)
    assert pairs(dispatcher.assign()) == [("5", "s")]


def test_lowering_a_limit_stops_pushes_until_less_is_in_flight() -> None:
    dispatcher = make(("s", "a", 2), rows=runs_in_order("1", "2", "3"))
    assert all(map(dispatcher.confirm, dispatcher.assign()))
    dispatcher.set_limit("s", 1)
    dispatcher.release("s", "1")
    assert dispatcher.assign() == []
    dispatcher.release("s", "2")
    assert pairs(dispatcher.assign()) == [("3", "s")]


def test_a_paused_session_gets_nothing_and_keeps_its_slots() -> None:
    dispatcher = make(("s", "a", 2), rows=runs_in_order("1", "2"))
    dispatcher.pause("s")
    assert (dispatcher.assign(), dispatcher.free_slots("s")) == ([], 2)
    dispatcher.unpause("s")
    reservations = dispatcher.assign()
    dispatcher.pause("s")
    assert all(map(dispatcher.confirm, reservations))
    assert list(dispatcher.in_flight("s")) == ["1", "2"]


def test_unknown_sessions_are_ignored() -> None:
    dispatcher = make()
    dispatcher.set_limit("x", 1)
    dispatcher.pause("x")
    dispatcher.unpause("x")
    dispatcher.disconnect("x", 1)
    assert dispatcher.end_session("x") == []
    assert (dispatcher.release("x", "1"), dispatcher.free_slots("x"), dispatcher.in_flight("x")) == (
        False,
        0,
        (),
    )


def test_unknown_keys_are_ignored() -> None:
    dispatcher = make(("s", "a", 1))
    dispatcher.mark_due("x")
    dispatcher.remove("x", "1")
    assert (dispatcher.has_demand("x"), dispatcher.refills_wanted()) == (False, [])


def test_keys_are_served_in_turn_across_assigns_and_sessions() -> None:
    rows = [make_run(f"{key}{n}", key, due=n) for key in "abc" for n in range(4)]
    dispatcher = make(("s", "abc", 1), ("t", "abc", 1), rows=rows)
    keys: list[str] = []
    while reservations := dispatcher.assign():
        for reservation in reservations:
            keys.append(reservation.run.task_key)
            assert dispatcher.confirm(reservation)
            dispatcher.release(reservation.session_id, reservation.run.id)
    assert keys[:9] == list("abcabcabc")


# Confirm and abort


def test_an_aborted_run_comes_back_in_its_place() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1", "2"))
    dispatcher.abort(assign_one(dispatcher))
    assert (window(dispatcher), dispatcher.free_slots("s")) == (["1", "2"], 1)
    assert pairs(dispatcher.assign()) == [("1", "s")]


def test_an_aborted_run_that_is_not_dispatchable_is_dropped() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1", "2"))
    dispatcher.abort(assign_one(dispatcher), requeue=False)
    assert pairs(dispatcher.assign()) == [("2", "s")]


def test_a_reservation_is_answered_once() -> None:
    dispatcher = make(("s", "a", 2), rows=runs_in_order("1", "2"))
    first, second = dispatcher.assign()
    dispatcher.abort(first, requeue=False)
    dispatcher.abort(first)
    assert not dispatcher.confirm(first)
    assert dispatcher.confirm(second)
    dispatcher.abort(second)
    assert (dispatcher.free_slots("s"), dispatcher.in_flight("s"), window(dispatcher)) == (1, ("2",), [])


def test_confirm_fails_when_the_session_is_disconnected() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    reservation = assign_one(dispatcher)
    dispatcher.disconnect("s", 1)
    assert not dispatcher.confirm(reservation)
    assert (dispatcher.free_slots("s"), dispatcher.place_of("1"), window(dispatcher)) == (1, None, [])


def test_confirm_fails_when_the_session_has_ended() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    reservation = assign_one(dispatcher)
    assert dispatcher.end_session("s") == []
    assert dispatcher.place_of("1") == Place(PlaceKind.RESERVED, "a", "s")
    assert not dispatcher.confirm(reservation)
    assert dispatcher.place_of("1") is None


def test_confirm_fails_when_the_session_was_resumed_meanwhile() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1", "2"))
    orphan = assign_one(dispatcher)
    dispatcher.resume("s", 2, "a", 1)
    current = assign_one(dispatcher)
    assert (current.run.id, current.epoch) == ("2", 2)
    assert not dispatcher.confirm(orphan)
    assert dispatcher.free_slots("s") == 0  # the slot of the orphan went with its epoch
    assert dispatcher.confirm(current)


def test_an_orphan_that_is_aborted_comes_back() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    orphan = assign_one(dispatcher)
    dispatcher.resume("s", 2, "a", 1)
    dispatcher.abort(orphan)
    assert pairs(dispatcher.assign()) == [("1", "s")]


def test_an_aborted_run_whose_key_nobody_serves_any_more_is_in_the_database_only() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    reservation = assign_one(dispatcher)
    dispatcher.end_session("s")
    dispatcher.abort(reservation)
    assert (dispatcher.place_of("1"), repr(dispatcher).split(" ", 1)[1]) == (
        None, "sessions=0 groups=0 keys=0 queued=0 reserved=0 in_flight=0>",
    )  # fmt: skip


def test_release_is_for_runs_in_flight_there() -> None:
    dispatcher = make(("s", "a", 1), ("t", "a", 1), rows=runs_in_order("1"))
    reservation = assign_one(dispatcher)
    assert not dispatcher.release("s", "1")  # reserved only
    assert dispatcher.confirm(reservation)
    assert not dispatcher.release("t", "1")
    assert dispatcher.release("s", "1")
    assert not dispatcher.release("s", "1")


# Added while it is held


def test_a_run_added_while_it_is_reserved_is_no_news_once_the_lease_is_committed() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    reservation = assign_one(dispatcher)
    dispatcher.enqueue(make_run("1"))
    assert window(dispatcher) == []
    assert dispatcher.confirm(reservation)
    dispatcher.release("s", "1")
    assert window(dispatcher) == []


@pytest.mark.parametrize("requeue", [True, False])
def test_a_run_added_while_it_is_reserved_counts_when_the_lease_fails(requeue: bool) -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1", "2"))
    reservation = assign_one(dispatcher)
    dispatcher.enqueue(make_run("1", due=9))
    dispatcher.abort(reservation, requeue=requeue)
    assert window(dispatcher) == ["2", "1"]


def test_a_run_added_while_it_is_in_flight_is_queued_when_it_leaves() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    assert dispatcher.confirm(assign_one(dispatcher))
    retry = make_run("1", lane=RETRY_LANE, due=4)
    dispatcher.enqueue(retry)
    assert dispatcher.assign() == []
    dispatcher.release("s", "1")
    assert assign_one(dispatcher).run == retry


def test_a_run_added_while_it_is_in_flight_and_removed_again_stays_away() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    assert dispatcher.confirm(assign_one(dispatcher))
    dispatcher.enqueue(make_run("1"))
    dispatcher.remove("a", "1")
    dispatcher.release("s", "1")
    assert dispatcher.assign() == []


def test_a_run_removed_while_it_is_reserved_does_not_come_back() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    reservation = assign_one(dispatcher)
    dispatcher.remove("a", "1")
    assert dispatcher.place_of("1") == Place(PlaceKind.RESERVED, "a", "s")
    dispatcher.abort(reservation)
    assert (window(dispatcher), dispatcher.free_slots("s")) == ([], 1)


# Sessions


def test_a_disconnected_session_keeps_what_it_holds_and_gets_nothing() -> None:
    dispatcher = make(("s", "a", 2), rows=runs_in_order("1"))
    assert dispatcher.confirm(assign_one(dispatcher))
    dispatcher.disconnect("s", 1)
    dispatcher.enqueue(make_run("2"))
    assert (dispatcher.assign(), dispatcher.in_flight("s"), dispatcher.sessions) == ([], ("1",), ("s",))
    assert dispatcher.has_demand("a")
    dispatcher.set_limit("s", 5)
    dispatcher.unpause("s")
    dispatcher.release("s", "1")
    assert dispatcher.assign() == []


def test_an_old_socket_does_not_disconnect_a_resumed_session() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    dispatcher.resume("s", 2, "a", 1)
    dispatcher.disconnect("s", 1)
    assert pairs(dispatcher.assign()) == [("1", "s")]


def test_resuming_takes_a_higher_epoch() -> None:
    dispatcher = make(("s", "a", 1))
    with pytest.raises(ValueError, match="epoch 1"):
        dispatcher.subscribe("s", 1, "b", 1)
    assert not dispatcher.has_demand("b")


def test_resuming_keeps_the_runs_that_are_listed_and_forgets_the_others() -> None:
    dispatcher = make(("s", "a", 3), rows=runs_in_order("1", "2", "3", "4"))
    assert all(map(dispatcher.confirm, dispatcher.assign()))
    dispatcher.disconnect("s", 1)
    dispatcher.resume("s", 2, "a", 3, [("1", "a"), ("3", "a"), ("1", "a")])
    assert dispatcher.in_flight("s") == ("1", "3")
    assert dispatcher.place_of("2") is None
    assert pairs(dispatcher.assign()) == [("4", "s")]


def test_resuming_keeps_the_windows() -> None:
    dispatcher = make(("s", "ab", 0), rows=runs_in_order("1"))
    before = dispatcher.queue("a")
    dispatcher.resume("s", 2, "a", 1)
    assert dispatcher.queue("a") is before
    assert not dispatcher.has_demand("b")
    assert pairs(dispatcher.assign()) == [("1", "s")]


def test_resuming_does_not_jump_the_queue() -> None:
    dispatcher = make(("s", "a", 1), ("t", "a", 1), rows=runs_in_order("1", "2"))
    for reservation in dispatcher.assign():
        dispatcher.abort(reservation, requeue=False)
    dispatcher.resume("t", 2, "a", 1)  # served last, but a session that was never served goes first
    dispatcher.enqueue(make_run("3"))
    assert pairs(dispatcher.assign()) == [("3", "s")]


def test_an_adopted_session_brings_its_runs() -> None:
    dispatcher = Dispatcher()
    dispatcher.subscribe("s", 7, "a", 2, [("1", "a"), ("x", "other-key")])
    settle(dispatcher, runs_in_order("1", "2"))  # the rows are older than the lease
    assert dispatcher.in_flight("s") == ("1", "x")
    assert (dispatcher.assign(), window(dispatcher)) == ([], ["2"])
    dispatcher.release("s", "x")
    assert pairs(dispatcher.assign()) == [("2", "s")]


def test_an_adopted_run_leaves_the_window() -> None:
    dispatcher = make(("s", "a", 0), rows=runs_in_order("1", "2"))
    dispatcher.subscribe("t", 1, "a", 1, [("1", "a")])
    assert window(dispatcher) == ["2"]


def test_a_run_that_is_reserved_and_listed_is_in_flight() -> None:
    dispatcher = make(("s", "a", 1), rows=runs_in_order("1"))
    orphan = assign_one(dispatcher)
    dispatcher.resume("s", 2, "a", 1, [("1", "a")])
    assert not dispatcher.confirm(orphan)
    assert dispatcher.place_of("1") == Place(PlaceKind.IN_FLIGHT, "a", "s")
    assert dispatcher.free_slots("s") == 0


def test_ending_a_session_returns_its_runs_and_drops_its_windows() -> None:
    dispatcher = make(("s", "ab", 2), ("t", "b", 0), rows=runs_in_order("1", "2", "3"))
    assert all(map(dispatcher.confirm, dispatcher.assign()))
    assert dispatcher.end_session("s") == ["1", "2"]
    assert (dispatcher.demanded_keys(), dispatcher.sessions) == (("b",), ("t",))
    assert (dispatcher.place_of("1"), dispatcher.place_of("3")) == (None, None)


def test_a_run_is_in_one_place() -> None:
    places = Places()
    places.hold("1", "a", "s")
    with pytest.raises(AssertionError, match="run 1 is at"):
        places.hold("1", "a", "t")
    with pytest.raises(AssertionError, match="run 1 is at"):
        places.reserve(Reservation(make_run("1"), "t", 1))
    assert len(places) == 1


# Hand-off


def test_a_hand_off_reserves_at_once() -> None:
    dispatcher = make(("s", "a", 1), ("t", "ab", 2))
    reservation = dispatcher.hand_off(make_run("1"))
    assert reservation == Reservation(make_run("1"), "t", 1)
    assert reservation is not None
    assert dispatcher.confirm(reservation)
    assert dispatcher.in_flight("t") == ("1",)


def test_a_failed_hand_off_frees_the_slot() -> None:
    dispatcher = make(("s", "a", 1))
    reservation = dispatcher.hand_off(make_run("1"))
    assert reservation is not None
    assert dispatcher.hand_off(make_run("2")) is None  # the slot is taken
    dispatcher.abort(reservation, requeue=False)
    settle(dispatcher)
    assert dispatcher.hand_off(make_run("2")) is not None


def test_a_hand_off_of_a_run_that_exists_already_does_not_hide_it() -> None:
    dispatcher = make(("s", "a", 1))
    resubmitted = dispatcher.hand_off(make_run("1"))  # its row waits for its time
    assert resubmitted is not None
    dispatcher.mark_due("a")
    settle(dispatcher, runs_in_order("1"))  # and that has come, but the run is reserved
    dispatcher.abort(resubmitted, requeue=False)
    assert dispatcher.assign() == []
    settle(dispatcher, runs_in_order("1"))
    assert pairs(dispatcher.assign()) == [("1", "s")]


def test_no_hand_off_before_the_window_is_complete() -> None:
    dispatcher = Dispatcher()
    assert dispatcher.hand_off(make_run("1")) is None
    dispatcher.subscribe("s", 1, "a", 1)
    assert dispatcher.hand_off(make_run("1")) is None
    settle(dispatcher)
    dispatcher.mark_due("a")
    assert dispatcher.hand_off(make_run("1")) is None
    settle(dispatcher)
    assert dispatcher.hand_off(make_run("1")) is not None


def test_no_hand_off_past_a_queued_run() -> None:
    dispatcher = make(("s", "a", 1))
    dispatcher.enqueue(make_run("1"))
    assert dispatcher.hand_off(make_run("2")) is None


def test_no_hand_off_past_a_submit_in_the_writer() -> None:
    dispatcher = make(("s", "a", 1))
    dispatcher.expect("a")
    dispatcher.expect("a")
    dispatcher.arrived("a")
    assert dispatcher.hand_off(make_run("3")) is None
    dispatcher.arrived("a")
    assert dispatcher.hand_off(make_run("3")) is not None


def test_submits_in_the_writer_are_counted_before_anybody_serves_the_key() -> None:
    dispatcher = Dispatcher()
    dispatcher.expect("a")
    dispatcher.subscribe("s", 1, "a", 1)
    settle(dispatcher)
    assert dispatcher.hand_off(make_run("2")) is None
    dispatcher.arrived("a")
    assert dispatcher.hand_off(make_run("2")) is not None


@pytest.mark.parametrize("why", ["paused", "disconnected", "full", "other work"])
def test_no_hand_off_to_a_session_that_does_not_wait(why: str) -> None:
    dispatcher = make(("s", "ab", 1))
    if why == "paused":
        dispatcher.pause("s")
    elif why == "disconnected":
        dispatcher.disconnect("s", 1)
    elif why == "full":
        dispatcher.set_limit("s", 0)
    else:
        dispatcher.enqueue(make_run("b", "b"))
    assert dispatcher.hand_off(make_run("1")) is None


def test_no_hand_off_of_a_run_that_is_held() -> None:
    dispatcher = make(("s", "a", 5))
    assert dispatcher.hand_off(make_run("1")) is not None
    assert dispatcher.hand_off(make_run("1")) is None


# Refills


def test_refills_are_begun_once_and_only_for_connected_sessions() -> None:
    dispatcher = Dispatcher(4)
    dispatcher.subscribe("s", 1, "ab", 1)
    dispatcher.disconnect("s", 1)
    assert dispatcher.refills_wanted() == []
    dispatcher.resume("s", 2, "ab", 1)
    assert sorted((key, limit) for key, _, limit in dispatcher.refills_wanted()) == [("a", 4), ("b", 4)]
    assert dispatcher.refills_wanted() == []


def test_a_refill_reads_past_the_reserved_runs() -> None:
    dispatcher = make(("s", "a", 3), rows=runs_in_order("1", "2", "3", "4"))
    first, _, _ = dispatcher.assign()
    dispatcher.abort(first, requeue=False)
    ((key, ticket, limit),) = dispatcher.refills_wanted()
    assert limit == 4 + 2
    dispatcher.apply_refill(key, ticket, runs_in_order("1", "2", "3", "4", "5")[1:], limit)
    assert window(dispatcher) == ["4", "5"]


def test_an_abandoned_refill_is_wanted_again() -> None:
    dispatcher = Dispatcher()
    dispatcher.subscribe("s", 1, "a", 1)
    ((key, ticket, _),) = dispatcher.refills_wanted()
    dispatcher.abandon_refill(key, ticket)
    ((again, fresh, _),) = dispatcher.refills_wanted()
    assert (again, fresh is ticket) == ("a", False)
    dispatcher.abandon_refill("nobody", ticket)


def test_the_refill_of_a_dropped_window_is_ignored() -> None:
    dispatcher = Dispatcher()
    dispatcher.subscribe("s", 1, "a", 1)
    ((key, ticket, limit),) = dispatcher.refills_wanted()
    dispatcher.end_session("s")
    dispatcher.apply_refill(key, ticket, runs_in_order("1"), limit)
    dispatcher.subscribe("s", 1, "a", 1)
    ((_, fresh, _),) = dispatcher.refills_wanted()
    dispatcher.apply_refill(key, ticket, runs_in_order("1"), limit)
    dispatcher.abandon_refill(key, ticket)
    assert (window(dispatcher), dispatcher.refills_wanted()) == ([], [])
    dispatcher.apply_refill(key, fresh, runs_in_order("2"), limit)
    assert window(dispatcher) == ["2"]


def test_due_runs_are_refilled() -> None:
    dispatcher = make(("s", "a", 1))
    dispatcher.mark_due("a")
    settle(dispatcher, runs_in_order("1"))
    assert pairs(dispatcher.assign()) == [("1", "s")]


@pytest.mark.parametrize("how", ["release", "drop", "remove", "end", "resume", "refuse"])
def test_a_refill_does_not_resurrect_a_run_that_left(how: str) -> None:
    dispatcher = make(("s", "a", 1), ("t", "a", 0), rows=runs_in_order("1", "2"))
    reservation = assign_one(dispatcher)
    if how in ("release", "end", "resume"):
        assert dispatcher.confirm(reservation)
    dispatcher.mark_due("a")
    ((key, ticket, limit),) = dispatcher.refills_wanted()
    rows = runs_in_order("1", "2", "3")
    if how == "release":
        assert dispatcher.release("s", "1")
    elif how == "drop":
        dispatcher.abort(reservation, requeue=False)
    elif how == "remove":
        dispatcher.abort(reservation)
        dispatcher.remove("a", "1")
    elif how == "end":
        assert dispatcher.end_session("s") == ["1"]
    elif how == "resume":
        dispatcher.resume("s", 2, "a", 1)
    else:
        dispatcher.disconnect("s", 1)
        assert not dispatcher.confirm(reservation)
    dispatcher.apply_refill(key, ticket, rows, limit)
    assert window(dispatcher) == ["2", "3"]


# Costs, counted in looks at a queue and at a heap, which no machine changes


def count_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    calls: Counter[str] = Counter()

    def count(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def counting(*args: object) -> object:
            calls[f"{owner.__name__}.{name}"] += 1
            return original(*args)

        monkeypatch.setattr(owner, name, counting)

    count(Group, "best")
    count(Group, "offer")
    count(MultiQueue, "get_nowait")
    count(MultiQueue, "activate")
    return calls


def cost_of_a_run(monkeypatch: pytest.MonkeyPatch, *, idle_sessions: int, idle_keys: int) -> Counter[str]:
    dispatcher = Dispatcher()
    for n in range(idle_keys):
        dispatcher.subscribe(f"idle-key-{n}", 1, [f"key-{n}"], 1)
    for n in range(idle_sessions):
        dispatcher.subscribe(f"idle-{n}", 1, ["a", "b"], 1)
    dispatcher.subscribe("busy", 1, ["a", "b"], 5)
    settle(dispatcher)
    dispatcher.assign()
    with monkeypatch.context() as patch:
        calls = count_calls(patch)
        for n in range(20):
            dispatcher.enqueue(make_run(str(n)))
            reservation = assign_one(dispatcher)
            assert dispatcher.confirm(reservation)
            assert dispatcher.release(reservation.session_id, str(n))
            assert dispatcher.refills_wanted() == []
            assert dispatcher.assign() == []
    return calls


def test_the_cost_of_a_run_does_not_depend_on_idle_sessions_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = cost_of_a_run(monkeypatch, idle_sessions=0, idle_keys=0)
    assert cost_of_a_run(monkeypatch, idle_sessions=500, idle_keys=500) == alone
    assert max(alone.values()) <= 20 * 5


def test_the_heap_of_a_group_does_not_grow_with_the_runs_served() -> None:
    dispatcher = make(("s", "a", 9), ("t", "a", 2))
    for n in range(500):
        dispatcher.enqueue(make_run(str(n)))
        reservation = assign_one(dispatcher)
        assert dispatcher.confirm(reservation)
        dispatcher.release(reservation.session_id, str(n))
        dispatcher.set_limit("t", 1 + n % 2)
    (group,) = dispatcher._groups.values()  # pyright: ignore[reportPrivateUsage]
    assert len(group._heap) <= 2 * 2 + 8  # pyright: ignore[reportPrivateUsage]


@PROPERTY
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "ab", "bc"]), st.integers(0, 4)), min_size=1, max_size=6),
    st.lists(st.sampled_from("abc"), max_size=20),
)
def test_every_next_run_goes_to_the_session_with_the_most_free_slots(
    sessions: list[tuple[str, int]], keys: list[str]
) -> None:
    dispatcher = make(*((f"s{n}", *session) for n, session in enumerate(sessions)), window_size=50)
    runs = [make_run(f"{n:02}", key) for n, key in enumerate(keys)]
    queued = {key: [run for run in runs if run.task_key == key] for key in "abc"}
    for run in runs:
        dispatcher.enqueue(run)
    free = {f"s{n}": limit for n, (_, limit) in enumerate(sessions)}
    serves = {f"s{n}": served for n, (served, _) in enumerate(sessions)}

    def candidates() -> list[str]:
        return [s for s in free if free[s] and any(queued[key] for key in serves[s])]

    for reservation in dispatcher.assign():
        assert free[reservation.session_id] == max(free[s] for s in candidates())
        assert reservation.run == queued[reservation.run.task_key].pop(0)
        free[reservation.session_id] -= 1
    assert candidates() == []


# Repr


def test_repr() -> None:
    dispatcher = make(("s", "a", 2), ("t", "ab", 0), rows=runs_in_order("1", "2", "3"))
    assert dispatcher.confirm(dispatcher.assign()[0])
    assert repr(dispatcher) == "<Dispatcher sessions=2 groups=2 keys=2 queued=1 reserved=1 in_flight=1>"
    assert repr(dispatcher._places) == "<Places reserved=1 in_flight=1>"  # pyright: ignore[reportPrivateUsage]
    group = Group(MultiQueue(frozenset(), {}))
    session = Session("s", 3, group, 4, 1)
    group.join(session)
    assert repr(group) == "<Group keys=0 sessions=1 connected=1>"
    assert repr(session) == "<Session 's' epoch=3 connected in_flight=0 reserved=0 limit=4>"
    session.paused = True
    assert "paused" in repr(session)
    group.disconnect(session)
    assert "disconnected" in repr(session)


def test_the_window_of_a_key_may_be_bounded_at_any_time() -> None:
    dispatcher = Dispatcher(window_size=3, window_sizes={"small": 1})
    dispatcher.subscribe("s", 1, ["small", "k"], 0)
    for key, ticket, limit in dispatcher.refills_wanted():
        dispatcher.apply_refill(key, ticket, [], limit)
    for key in ("small", "k"):
        for n in range(3):
            dispatcher.enqueue(make_run(f"{key}{n}", key, due=n))
    assert [len(dispatcher.queue(key) or ()) for key in ("small", "k")] == [1, 3]
    dispatcher.configure_task_key("k", 2)
    assert [run.id for run in dispatcher.queue("k") or ()] == ["k0", "k1"]
    dispatcher.configure_task_key("new", 5)
    assert dispatcher.queue("new") is None
