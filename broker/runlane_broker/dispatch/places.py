"""Where a run is: queued in a window, reserved for a session, or in flight at one. Never two of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from .runs import QueuedRun


@dataclass(frozen=True, slots=True)
class Reservation:
    """A run and a slot of a session, put aside while the lease is written. Ends by `confirm` or `abort`."""

    run: QueuedRun
    session_id: str
    epoch: int
    #: Made by `hand_off`, for a run that was not in the database as far as memory knew.
    handed_off: bool = field(default=False, compare=False)


class PlaceKind(Enum):
    """What kind of place a run is in."""

    #: In a window; leaves by a reservation, a removal, or by being evicted to the database.
    QUEUED = auto()
    #: Its lease is being written; leaves by `confirm` or `abort`.
    RESERVED = auto()
    #: Leased and pushed; leaves by `release`, or with its session.
    IN_FLIGHT = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is."""

    kind: PlaceKind
    task_key: str
    #: `None` for a queued run.
    session_id: str | None = None


class Places:
    """The one owner of every run that is reserved or in flight: the second place of a run is refused here."""

    __slots__ = ("_places", "_reserved")

    def __init__(self) -> None:
        self._places: dict[str, Reservation | Place] = {}
        self._reserved: dict[str, int] = {}

    def __repr__(self) -> str:
        reserved = sum(self._reserved.values())
        return f"<Places reserved={reserved} in_flight={len(self._places) - reserved}>"

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._places

    def get(self, run_id: str) -> Place | None:
        """Return the place of a run that is reserved or in flight."""
        held = self._places.get(run_id)
        if isinstance(held, Reservation):
            return Place(PlaceKind.RESERVED, held.run.task_key, held.session_id)
        return held

    def reservation_of(self, run_id: str) -> Reservation | None:
        """Return the reservation of a run, if it is reserved."""
        held = self._places.get(run_id)
        return held if isinstance(held, Reservation) else None

    def reservations(self) -> tuple[Reservation, ...]:
        """Return all reservations that stand."""
        return tuple(held for held in self._places.values() if isinstance(held, Reservation))

    def reserved_of(self, key: str) -> int:
        """Return how many runs of a key are reserved: the database still shows them as dispatchable."""
        return self._reserved.get(key, 0)

    def holds(self, reservation: Reservation) -> bool:
        """Say whether a reservation still stands."""
        return self._places.get(reservation.run.id) == reservation

    def reserve(self, reservation: Reservation) -> None:
        """Note a reservation."""
        run = reservation.run
        assert run.id not in self._places, f"run {run.id} is at {self._places[run.id]}"
        self._places[run.id] = reservation
        self._reserved[run.task_key] = self._reserved.get(run.task_key, 0) + 1

    def hold(self, run_id: str, task_key: str, session_id: str) -> None:
        """Note that a run is in flight at a session."""
        assert run_id not in self._places, f"run {run_id} is at {self._places[run_id]}"
        self._places[run_id] = Place(PlaceKind.IN_FLIGHT, task_key, session_id)

    def leave(self, run_id: str) -> None:
        """Forget where a run was."""
        held = self._places.pop(run_id)
        if isinstance(held, Reservation):
            key = held.run.task_key
            self._reserved[key] -= 1
            if not self._reserved[key]:
                del self._reserved[key]
