"""What all tables share: the metadata, the names of constraints, and lists of states.

Times are microseconds UTC, durations too; ids are UUIDs as text, so that they sort by time and read well in any
client. Integrity stands in constraints, so that a bug cannot write nonsense.
"""

from __future__ import annotations

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

#: All states, those after which nothing follows, and those in which a session may hold a run, as SQL lists.
STATES: Final = ", ".join(f"'{state.value}'" for state in StateType)
ENDED: Final = ", ".join(f"'{state.value}'" for state in sorted(FINAL))
HELD: Final = "'PENDING', 'RUNNING', 'CANCELLING'"
