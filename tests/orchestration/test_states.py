from __future__ import annotations

from itertools import product

import pytest

from runlane.protocol.states import FINAL, StateType
from runlane_broker.orchestration.decisions import Proposed
from runlane_broker.orchestration.leases import RunView, decide_report
from runlane_broker.orchestration.runs import Retries
from runlane_broker.orchestration.states import LEASABLE, TRANSITIONS, may_follow

S = StateType

#: The table once more, as a drawing: a row for each state that is left, a column for each that is entered.
TABLE = """
             SCHEDULED PENDING RUNNING PAUSED CANCELLING COMPLETED FAILED CRASHED CANCELLED
None         x         x       .       .      .          .         .      .       .
SCHEDULED    .         x       .       .      .          .         .      .       x
PENDING      x         .       x       .      x          x         x      x       x
RUNNING      x         .       .       .      x          x         x      x       x
CANCELLING   .         .       .       .      .          x         x      x       x
PAUSED       x         .       .       .      .          .         .      .       x
COMPLETED    .         .       .       .      .          .         .      .       .
FAILED       .         .       .       .      .          .         .      .       .
CRASHED      x         .       .       .      .          .         .      .       .
CANCELLED    .         .       .       .      .          .         .      .       .
"""


def cells() -> dict[tuple[StateType | None, StateType], bool]:
    header, *rows = (line.split() for line in TABLE.strip().splitlines())
    return {
        (None if row[0] == "None" else S(row[0]), S(column)): cell == "x"
        for row in rows
        for column, cell in zip(header, row[1:], strict=True)
    }


CELLS = cells()


def test_every_pair_of_states_is_decided() -> None:
    assert CELLS.keys() == set(product([None, *S], S))
    assert TRANSITIONS.keys() == {None, *S}


@pytest.mark.parametrize(("current", "proposed"), CELLS)
def test_a_transition_is_allowed_where_the_table_says_so(current: S | None, proposed: S) -> None:
    assert may_follow(current, proposed) is CELLS[current, proposed]


@pytest.mark.parametrize("final", sorted(FINAL))
def test_what_has_ended_has_ended_but_an_operator_requeues_what_crashed(final: S) -> None:
    follows = {proposed for proposed in S if may_follow(final, proposed)}
    assert follows == ({S.SCHEDULED} if final is S.CRASHED else set())


@pytest.mark.parametrize("held", sorted(LEASABLE))
def test_every_held_run_can_end_in_every_way(held: S) -> None:
    """A worker's report and the loss of its session always have somewhere to go."""
    assert all(may_follow(held, final) for final in FINAL)


def test_no_state_follows_itself() -> None:
    assert not any(may_follow(state, state) for state in S)


@pytest.mark.parametrize(
    ("current", "proposed"), [(c, p) for (c, p), allowed in CELLS.items() if c is not None and not allowed]
)
def test_a_refused_transition_is_refused_whatever_else_is_true(current: S, proposed: S) -> None:
    run = RunView(current, failures=0, losses=0, retries=Retries(3, (1.0,), 0.0))
    for retriable, retry_after in product((None, True, False), (None, 0.0, 5.0)):
        end = decide_report(run, Proposed(proposed), 0, 0.0, retriable=retriable, retry_after=retry_after)
        assert end is None
