"""The lists of what is no run."""

from __future__ import annotations

from ..schemas.sorts import DeploymentSort, FlowSort
from .filters import DEPLOYMENTS, FLOWS
from .flow_records import deployment_record, flow_record
from .listing import Listing, Reading
from .queries.flows import read_deployments, read_flows


class Lists:
    """Flows and deployments, filtered and sorted."""

    def __init__(self, reading: Reading) -> None:
        self.flows = Listing(FLOWS, FlowSort.NAME_ASC, reading, read_flows, flow_record)
        self.deployments = Listing(
            DEPLOYMENTS, DeploymentSort.NAME_ASC, reading, read_deployments, deployment_record
        )
