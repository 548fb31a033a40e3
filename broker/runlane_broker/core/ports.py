"""What the core needs of the edges: somebody to push to. The gateway's connections are these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from runlane.protocol.closing import CloseCode
from runlane.protocol.messages import PushedRun

from ..storage.records import FinalRun, LeasedRun
from ..storage.run_records import RunRecord

#: How long a worker may take to stop a run that is being cancelled, in seconds.
CANCEL_GRACE_SECONDS: Final = 10.0


class SessionPort(Protocol):
    """A worker's connection. Nothing here waits: frames go to an outbox."""

    def runs(self, runs: Sequence[PushedRun]) -> None:
        """Push leased runs."""
        ...

    def recorded(self, run_id: str, attempt: int, *, gone: bool = False) -> None:
        """Tell that a report is committed."""
        ...

    def lease_lost(self, run_id: str, attempt: int) -> None:
        """Tell that a lease is over."""
        ...

    def cancel(self, run_id: str, attempt: int, grace_seconds: float) -> None:
        """Ask to stop a run."""
        ...

    def draining(self, retry_after: float) -> None:
        """Tell that the broker goes down."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the connection; the rest of its life goes the usual way."""
        ...


class Taker(Protocol):
    """How runs go to a worker that reads them as they are shown, and takes them one at a time."""

    def push(self, runs: Sequence[LeasedRun]) -> None:
        """Runs were leased."""
        ...

    def reported(self, run_id: str) -> None:
        """A state of a run was recorded; the lease goes on."""
        ...


class TakerPort(SessionPort, Protocol):
    """The connection of a worker that reads runs as they are shown."""

    def task_run(self, run: RunRecord) -> None:
        """Push a leased run, as it was while it waited."""
        ...


class Watcher(Protocol):
    """A producer's connection that wants to hear of runs."""

    def run_finished(self, run: FinalRun) -> None:
        """Push the end of a run."""
        ...

    def run_progress(self, run_id: str, current: float, total: float | None, message: str | None) -> None:
        """Push a run's progress."""
        ...
