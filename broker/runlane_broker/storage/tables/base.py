"""What all tables share: the metadata, the names of constraints, and lists of states.

Times are microseconds UTC, durations too; ids are UUIDs as text, so that they sort by time and read well in any
client. Integrity stands in constraints, so that a bug cannot write nonsense.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import MetaData

from runlane.protocol.states import FINAL, StateType

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: States after which nothing follows, as a SQL list.
ENDED: Final = ", ".join(f"'{state.value}'" for state in sorted(FINAL))
#: States in which a session may hold a run.
HELD: Final = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


def one_of(column: str, states: Iterable[StateType] = StateType) -> str:
    """Return a check that a column holds one of these states.

    SQLite would make a table of a list, for every row that is written: that takes longer than to write the row.
    """
    return " OR ".join(f"{column} = '{state.value}'" for state in states)
