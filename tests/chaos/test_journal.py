"""A journal outlives the process that writes it, wherever that is killed."""

from __future__ import annotations

from pathlib import Path

from .journal import Journal, read


def test_a_line_that_a_kill_has_torn_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    first.note("submit", run="a")
    first.note("answer", run="a")
    first.close()
    path.write_bytes(path.read_bytes()[:-7])
    again = Journal(path)
    again.note("watch", run="a")
    again.close()
    assert [event["event"] for event in read(path)] == ["submit", "watch"]
