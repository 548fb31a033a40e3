"""The Runlane broker: durable dispatch of task runs to workers over WebSockets."""
