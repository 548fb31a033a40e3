"""One WebSocket to the broker, kept up.

`dial` opens and authenticates a `Link`; a `Link` reads and writes frames until it breaks; `keep_connected`
dials again and again, at the pace of `backoff`. What the frames mean is the business of whoever listens.
"""

from .backoff import retry_delay
from .dial import dial
from .keeper import Listener, keep_connected
from .link import Link

__all__ = ["Link", "Listener", "dial", "keep_connected", "retry_delay"]
