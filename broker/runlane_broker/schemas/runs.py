"""What task runs and flow runs have in common over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta

from runlane.protocol.messages import Seconds, Time

from ..errors import Invalid
from .base import Request, Response
from .states import State

MAX_RETRY_DELAYS: Final = 50
_Retries: TypeAlias = Annotated[int, Meta(ge=0, le=1000)]
#: Seconds, or a list of them.
Delay: TypeAlias = Seconds | Annotated[tuple[Seconds, ...], Meta(extra_json_schema={"maxItems": MAX_RETRY_DELAYS})]


class PolicyCreate(Request):
    """How a run is retried. `max_retries` and `retry_delay_seconds` are the old names of the first two."""

    retries: _Retries | None = None
    retry_delay: Delay | None = None
    retry_jitter_factor: Annotated[float, Meta(ge=0, le=10)] | None = None
    max_retries: _Retries | None = None
    retry_delay_seconds: Seconds | None = None

    def check(self) -> None:
        """Raise `Invalid` for too many delays."""
        if isinstance(self.retry_delay, tuple) and len(self.retry_delay) > MAX_RETRY_DELAYS:
            message = f"Can not configure more than {MAX_RETRY_DELAYS} retry delays per task."
            raise Invalid(message, "empirical_policy.retry_delay")

    @property
    def limit(self) -> int:
        """How often."""
        return (self.max_retries or 0) if self.retries is None else self.retries

    @property
    def delays(self) -> tuple[float, ...]:
        """The delays in seconds; the last one counts for all further retries."""
        delay = self.retry_delay_seconds if self.retry_delay is None else self.retry_delay
        if isinstance(delay, tuple):
            return delay or (0.0,)
        return (delay or 0.0,)


class FlowRunPolicyCreate(PolicyCreate):
    """How a flow run is retried and paused."""

    pause_keys: list[str] | None = None
    resuming: bool | None = None
    retry_type: str | None = None


class Policy(Response):
    """How a run is retried, under its old names, too."""

    retries: int
    retry_delay: float | tuple[float, ...]
    retry_jitter_factor: float | None
    max_retries: int
    retry_delay_seconds: float


class FlowRunPolicy(Policy):
    """How a flow run is retried and paused."""

    pause_keys: list[str]
    resuming: bool
    retry_type: str | None


class Run(Response):
    """What runs of both kinds have. Durations are seconds; the estimates are as of the answer."""

    id: str
    created: Time
    updated: Time
    name: str
    tags: tuple[str, ...]
    labels: dict[str, Any]
    state_id: str
    state_type: str
    state_name: str
    state: State
    run_count: int
    expected_start_time: Time | None
    next_scheduled_start_time: Time | None
    start_time: Time | None
    end_time: Time | None
    total_run_time: float
    estimated_run_time: float
    estimated_start_time_delta: float


class Page(Response):
    """Where in a list a page stands."""

    count: int
    limit: int
    pages: int
    page: int
