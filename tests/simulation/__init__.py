"""Deterministic simulation: the real broker, on a virtual clock, among peers and disks that fail. See `world`."""
