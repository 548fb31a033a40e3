"""Progress on its way from the thread that says it to the one that sends it."""

from __future__ import annotations

from collections.abc import Callable

from ..protocol.messages import Progress


class LatestProgress:
    """The latest progress of one run. However often it is said, the other side is told once until it has looked.

    One thread says, another looks; there is no lock, because of the order in which both touch the flag.
    """

    __slots__ = ("_frame", "_tell", "_told")

    def __init__(self, tell: Callable[[LatestProgress], None]) -> None:
        self._tell = tell
        self._frame: Progress | None = None
        self._told = False

    def __repr__(self) -> str:
        return f"<LatestProgress {self._frame!r}>"

    def put(self, frame: Progress) -> None:
        """Note how far the run is."""
        self._frame = frame
        if not self._told:
            self._told = True
            self._tell(self)

    def take(self) -> Progress | None:
        """Return what is new, if anything is."""
        self._told = False
        frame, self._frame = self._frame, None
        return frame
