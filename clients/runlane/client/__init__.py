"""The producer's end: submits runs and hears of their ends, over one connection per client."""

from .client import Client, current_client
from .watches import ProgressCallback

__all__ = ["Client", "ProgressCallback", "current_client"]
