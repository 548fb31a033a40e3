"""Runs that are given up, or taken up again, by filter."""

from __future__ import annotations

from ..errors import Invalid
from .base import Request, Response
from .filters import DeploymentFilter, Filters, FlowFilter, FlowRunFilter, TaskRunFilter


class ChosenRuns(Request):
    """Which runs, as in lists; but a filter that there is not is a mistake here, and so is none at all.

    `all` says that none is given on purpose.
    """

    flows: FlowFilter | None = None
    flow_runs: FlowRunFilter | None = None
    task_runs: TaskRunFilter | None = None
    deployments: DeploymentFilter | None = None
    all: bool = False

    def check(self) -> None:
        """Raise `Invalid` where nobody says which."""
        given = (self.flows, self.flow_runs, self.task_runs, self.deployments)
        if not self.all and not any(given):
            raise Invalid("say which runs, or `all`", "task_runs")

    def filters(self) -> Filters:
        """The filters together."""
        return Filters(
            flows=self.flows, flow_runs=self.flow_runs, task_runs=self.task_runs, deployments=self.deployments
        )


class CancelledRuns(Response):
    """How many runs have been cancelled, and how many are being: somebody holds those. `more`: ask again."""

    cancelled: int
    cancelling: int
    more: bool


class RequeuedRuns(Response):
    """How many runs have been queued again. `more`: ask again."""

    requeued: int
    more: bool
