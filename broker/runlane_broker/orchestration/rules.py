"""What a rule and a policy are.

A rule is data (its name, which states it is about when they are left, and when they are entered) and a short
function. A policy is a tuple of rules, first come first served, and of consequences of what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from msgspec import Struct

from runlane.protocol.states import FINAL, StateType

from ..clock import Micros
from .decisions import Abort, Effect, Proposed, Reject, Wait
from .facts import Facts
from .runs import CurrentState, Run

#: States to be left. None: of a run that is only being created.
Left: TypeAlias = frozenset[StateType | None]
#: States to be entered.
Entered: TypeAlias = frozenset[StateType]

ANY: Final[Entered] = frozenset(StateType)
ANY_OR_NONE: Final[Left] = frozenset({None, *StateType})
ENDED: Final[Left] = frozenset({*FINAL})


def only(*states: StateType) -> frozenset[StateType]:
    """Return the set of these states."""
    return frozenset(states)


class Transition(Struct, frozen=True):
    """A run on its way into a state.

    Rules may return another one, with a changed state, run or effects. `intended` is the type of state that was
    asked for, whatever has become of it.
    """

    run: Run
    proposed: Proposed
    intended: StateType
    facts: Facts
    now: Micros
    effects: tuple[Effect, ...] = ()

    @property
    def current(self) -> CurrentState:
        """The state that the run is in. Rules about runs that have none must not ask."""
        assert self.run.state is not None, "the rule says that it is about runs with a state"
        return self.run.state


@dataclass(frozen=True, slots=True)
class Replace:
    """A rule's answer: this state instead. It ends the matter; what earlier rules have changed is dropped."""

    state: Proposed
    reason: str
    effects: tuple[Effect, ...] = ()


#: A rule's answer: go on (the transition as it was, or changed), or an end of the matter.
Verdict: TypeAlias = Transition | Replace | Reject | Wait | Abort


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: from which states into which it has a say, and what it says."""

    name: str
    leaving: Left | Entered
    entering: Entered
    judge: Callable[[Transition], Verdict]

    def covers(self, left: StateType | None, entered: StateType) -> bool:
        """Say whether the rule is about this change of state."""
        return left in self.leaving and entered in self.entering

    @property
    def summary(self) -> str:
        """What the rule does, in one line."""
        return (self.judge.__doc__ or "").partition("\n")[0]


#: What else follows from a transition that is about to be written: its `proposed` is what is written.
Consequence: TypeAlias = Callable[[Transition], tuple[Effect, ...]]


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in the order in which they are asked, and consequences in the order in which they are carried out."""

    name: str
    rules: tuple[Rule, ...]
    consequences: tuple[Consequence, ...] = ()
