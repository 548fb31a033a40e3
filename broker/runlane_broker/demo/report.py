"""What the demo's job has come to, as tables: the whole, each worker, and the story of one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .history import Step
from .tasks import Measured


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file: its run, when that was submitted (time of day, seconds), and what came back."""

    path: Path
    run_id: str
    submitted: float
    measured: Measured

    @property
    def wait(self) -> float:
        """Seconds from the submit to the task's first line."""
        return max(self.measured.started - self.submitted, 0.0)


@dataclass(slots=True)
class Figures:
    """What one worker process has done so far."""

    runs: int = 0
    bytes: int = 0
    lines: int = 0
    seconds: float = 0.0

    def add(self, measured: Measured) -> None:
        """Count a run."""
        self.runs += 1
        self.bytes += measured.bytes
        self.lines += measured.lines
        self.seconds += measured.seconds


@dataclass(frozen=True, slots=True)
class Report:
    """What the job has come to. `history` is that of the run which waited `longest`."""

    outcomes: tuple[Outcome, ...]
    seconds: float
    wrong: tuple[Path, ...]
    longest: Outcome
    history: tuple[Step, ...]

    def render(self) -> RenderableType:
        """Return all of it, for a console."""
        title = f"What happened to the run that waited longest ({self.longest.path.name}):"
        return Group(
            "", self._summary(), "", workers_table(figures_of(self.outcomes)), "", title, _story(self.history)
        )

    def _summary(self) -> Table:
        count = len(self.outcomes)
        waits = sorted(outcome.wait for outcome in self.outcomes)
        table = Table.grid(padding=(0, 3))
        for name, value in (
            ("time", f"{self.seconds:.2f} s, {count / self.seconds:,.0f} runs/s"),
            (
                "wait",
                f"p50 {_ms(waits, 0.50)}, p99 {_ms(waits, 0.99)} from submit to start, for all come at once",
            ),
            ("verified", f"{count - len(self.wrong):,} of {count:,} equal to a local computation"),
        ):
            table.add_row(name, Text(value, "red" if name == "verified" and self.wrong else ""))
        return table


def figures_of(outcomes: Iterable[Outcome]) -> dict[int, Figures]:
    """Return each worker process's figures."""
    figures: defaultdict[int, Figures] = defaultdict(Figures)
    for outcome in outcomes:
        figures[outcome.measured.worker].add(outcome.measured)
    return figures


def workers_table(figures: dict[int, Figures]) -> Table:
    """Return a row for each worker process."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2), show_edge=False)
    table.add_column("worker process")
    for name in ("runs", "files' bytes", "lines", "time in tasks"):
        table.add_column(name, justify="right")
    for pid, one in sorted(figures.items()):
        table.add_row(str(pid), f"{one.runs:,}", f"{one.bytes:,}", f"{one.lines:,}", f"{one.seconds:.2f} s")
    return table


def _story(history: Sequence[Step]) -> Table:
    table = Table.grid(padding=(0, 3))
    for after, step in _after_first(history):
        table.add_row(
            f"{step.timestamp.astimezone():%H:%M:%S.%f}"[:-3], f"+{after:.3f} s", step.name, step.message or ""
        )
    return table


def _after_first(history: Sequence[Step]) -> Iterator[tuple[float, Step]]:
    """Yield the steps with their seconds since the first."""
    return ((((step.timestamp - history[0].timestamp).total_seconds()), step) for step in history)


def _ms(values: Sequence[float], quantile: float) -> str:
    if not values:
        return "-"
    return f"{values[min(int(len(values) * quantile), len(values) - 1)] * 1000:.1f} ms"
