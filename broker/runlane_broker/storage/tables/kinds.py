"""The two kinds of runs, as one: whoever reads or writes runs of either is given one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Table

from .flows import flow_run, flow_run_payload, flow_run_state
from .task_runs import task_run, task_run_payload, task_run_state


@dataclass(frozen=True, slots=True)
class RunKind:
    """The tables of one kind of run. Columns of the same name mean the same in both."""

    name: str
    run: Table
    payload: Table
    state: Table

    @property
    def run_of_state(self) -> Column[Any]:
        """The column by which a state says whose it is."""
        return self.state.c[f"{self.name}_id"]

    @property
    def run_of_payload(self) -> Column[Any]:
        """The column by which a payload says whose it is."""
        return self.payload.c[f"{self.name}_id"]


TASK_RUN: Final = RunKind("task_run", task_run, task_run_payload, task_run_state)
FLOW_RUN: Final = RunKind("flow_run", flow_run, flow_run_payload, flow_run_state)
