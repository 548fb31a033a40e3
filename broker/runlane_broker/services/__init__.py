"""What the broker does on its own, by the clock: one file a service, one skeleton."""
