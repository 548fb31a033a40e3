"""The limits that both ends know before they meet. A broker announces its own in `auth_success`."""

from __future__ import annotations

from typing import Final

#: Bytes of one WebSocket message, either way. More is closed with 1009.
MAX_MESSAGE_BYTES: Final = 1024 * 1024
#: Bytes of `parameters`, of `result` and of `error`, each. More is refused with `payload_too_large`.
MAX_PAYLOAD_BYTES: Final = 512 * 1024
#: How deep the objects and arrays of a payload may nest. More is refused with `payload_too_deep`.
MAX_DEPTH: Final = 64
#: Task keys of one subscription.
MAX_KEYS: Final = 256
#: Work queues of one subscription.
MAX_QUEUES: Final = 64
#: Runs that one session may hold at once.
MAX_LIMIT: Final = 1000
#: Runs in one `submit` frame: few enough that their answers fit into one message, whatever is wrong with them.
MAX_RUNS_PER_SUBMIT: Final = 1000
#: Bytes of a run's headers as JSON: with its parameters they must fit into one message.
MAX_HEADERS_BYTES: Final = 64 * 1024
#: Ids in one `watch` or `unwatch` frame.
MAX_IDS: Final = 10_000
#: Ids in one `cancel` frame: it is one transaction, and others wait for its end.
MAX_IDS_PER_CANCEL: Final = 1000
#: Highest priority; 0 is the lowest and the default.
MAX_PRIORITY: Final = 9
#: Seconds from the upgrade to a valid `auth`, and from there to `subscribe`. Later is closed with 1008.
HANDSHAKE_SECONDS: Final = 5.0
#: Frames that a peer may get wrong before its connection is closed with 4001.
MAX_BAD_FRAMES: Final = 10
#: Messages received and not yet processed, per connection. More is closed with 4429.
MAX_UNPROCESSED_FRAMES: Final = 1024
#: Bytes received and not yet processed, per connection. More is closed with 4429.
MAX_UNPROCESSED_BYTES: Final = 4 * 1024 * 1024
