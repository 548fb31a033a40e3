"""The WebSocket edge of `runlane.v1`: the worker socket and the submission socket. No business logic."""
