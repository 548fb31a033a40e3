"""Peers that mean no good, against a real broker: `make fuzz`, `make hostile`. The tests have a smoke of both."""
