"""How the demo shows what goes on: live in a terminal, in plain lines anywhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.text import Text

from .report import Figures, Outcome, workers_table

#: How often a live display is drawn, a second.
_FRAMES: Final = 12
#: Plain lines of progress for one job.
_LINES: Final = 4


class Display:
    """A console that knows whether somebody watches it live."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._live = live

    def say(self, what: RenderableType) -> None:
        """Print something."""
        self._console.print(what, soft_wrap=isinstance(what, str))

    @contextmanager
    def progress(self, total: int) -> Generator[Callable[[Outcome], None]]:
        """Show how far the job is; gives what to call with each outcome."""
        if not self._live:
            yield self._lines(total)
            return
        board = _Board(total)
        with Live(board, console=self._console, refresh_per_second=_FRAMES, transient=True):
            yield board.count

    def _lines(self, total: int) -> Callable[[Outcome], None]:
        done = 0

        def count(_: Outcome) -> None:
            nonlocal done
            done += 1
            if done * _LINES // total > (done - 1) * _LINES // total:
                self.say(f"  {done:,} of {total:,}")

        return count


class _Board:
    """A bar for the job, and each worker's figures below it."""

    def __init__(self, total: int) -> None:
        self._bar = Progress(BarColumn(None), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), expand=True)
        self._job = self._bar.add_task("runs", total=total)
        self._workers: dict[int, Figures] = {}

    def count(self, outcome: Outcome) -> None:
        self._workers.setdefault(outcome.measured.worker, Figures()).add(outcome.measured)
        self._bar.advance(self._job)

    def __rich__(self) -> Group:
        return Group(self._bar, workers_table(self._workers))


class _Rate(ProgressColumn):
    """Runs a second."""

    def render(self, task: Task) -> Text:
        """Return the rate of the last moments."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} runs/s")


def make_display(environ: Mapping[str, str] = os.environ) -> Display:
    """Return a display on standard output: live in a terminal, unless that is a CI's."""
    console = Console(highlight=False)
    return Display(console, live=console.is_terminal and not environ.get("CI"))
