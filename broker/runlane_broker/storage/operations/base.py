"""The shape of an operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Self, TypeVar

from ..transaction import Transaction

T_co = TypeVar("T_co", covariant=True)


class Operation(ABC, Generic[T_co]):
    """Something that the writer does inside a transaction.

    `execute` may run more than once (a failed group is redone singly), so it changes nothing but the database.
    """

    __slots__ = ()

    @property
    def weight(self) -> int:
        """How many rows it is about, for backpressure."""
        return 1

    @property
    def size(self) -> int:
        """Bytes of payload that it carries, for backpressure."""
        return 0

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it. What is not urgent goes with the next group, or a little later."""
        return True

    @abstractmethod
    def execute(self, tx: Transaction) -> T_co:
        """Do it and return the outcome."""


class Chore(Operation[T_co]):
    """Work that nobody waits for: done when the writer has nothing else to do, a step at a time.

    `execute` is one step, of half a millisecond or so, and says how far it came; from there the writer goes on in
    its own time. The last outcome is the whole chore's; an earlier one, where the writer ends. Steps are not
    waited for until they are on the disk: a loss of power may undo the last of them, and they are found again.
    """

    __slots__ = ()

    #: For how long it rests after a step while others write, as a multiple of what the step took, commit and all.
    rest: ClassVar[float] = 1.3

    def then(self, outcome: Any) -> Self | None:
        """Return what is left to do after `execute` came so far; None if that was all."""
        return None
