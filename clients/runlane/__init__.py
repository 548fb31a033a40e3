"""Runlane: durable task dispatch over WebSockets."""

__version__ = "0.1.0"
