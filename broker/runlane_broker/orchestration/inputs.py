"""What a run waits for: the runs whose results it is given, and those it was told to wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

#: Under this name stands the run that has created this one, and may wait for it in its turn.
PARENTS: Final = "__parents__"


def upstream_runs(task_inputs: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Return the ids of the task runs that must have ended before a run with these inputs can start.

    A worker of Prefect's would wait for them by itself, in a slot, where it may wait for what needs that slot.
    """
    named = (entry for name, entries in task_inputs.items() if name != PARENTS for entry in entries)
    ids = (entry.get("id") for entry in named if entry.get("input_type") == "task_run")
    return tuple(dict.fromkeys(run_id for run_id in ids if isinstance(run_id, str)))
