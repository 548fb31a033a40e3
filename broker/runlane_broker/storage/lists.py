"""The lists of what is no run."""

from __future__ import annotations

from ..schemas.sorts import DeploymentSort, FlowSort, WorkPoolSort, WorkQueueSort
from .filters import DEPLOYMENTS, FLOWS, WORK_POOLS, WORK_QUEUES
from .flow_records import deployment_record, flow_record
from .listing import Listing, Reading
from .queries.flows import read_deployments, read_flows
from .queries.queues import read_pools, read_queues
from .queue_records import pool_record, queue_record


class Lists:
    """Flows, deployments, work pools and work queues, filtered and sorted."""

    def __init__(self, reading: Reading) -> None:
        self.flows = Listing(FLOWS, FlowSort.NAME_ASC, reading, read_flows(), flow_record)
        self.deployments = Listing(
            DEPLOYMENTS, DeploymentSort.NAME_ASC, reading, read_deployments(), deployment_record
        )
        self.work_pools = Listing(WORK_POOLS, WorkPoolSort.NAME_ASC, reading, read_pools(), pool_record)
        self.work_queues = Listing(WORK_QUEUES, WorkQueueSort.NAME_ASC, reading, read_queues(), queue_record)
