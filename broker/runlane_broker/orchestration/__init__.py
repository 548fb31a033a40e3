"""Pure rules: which state may follow which, and what becomes of a proposed state. No I/O, no clock reads."""
