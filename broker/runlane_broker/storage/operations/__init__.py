"""What the writer can do: one class per operation, each the body of (a part of) one write transaction."""
