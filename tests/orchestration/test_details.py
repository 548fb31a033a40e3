from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from runlane_broker.orchestration.details import NO_DETAILS, TIMES, StateDetails, dump, load

PROPERTY = settings(max_examples=100, derandomize=True, deadline=None, database=None)

#: What a Prefect 3.x server shows of every state.
DOCUMENTED = {
    *("flow_run_id", "task_run_id", "child_flow_run_id", "scheduled_time", "cache_key", "cache_expiration"),
    *("deferred", "untrackable_result", "pause_timeout", "pause_reschedule", "pause_key", "run_input_keyset"),
    *("refresh_cache", "retriable", "transition_id", "task_parameters_id", "traceparent"),
    "deployment_concurrency_lease_id",
}
KNOWN = {*StateDetails.__struct_fields__} - {"others"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
TYPES = {name: st.none() | st.text() for name in KNOWN} | {
    "scheduled_time": st.none() | st.integers(),
    "cache_expiration": st.none() | st.integers(),
    "pause_timeout": st.none() | st.integers(),
    "deferred": st.booleans(),
    "untrackable_result": st.booleans(),
    "pause_reschedule": st.booleans(),
    "run_input_keyset": st.none() | st.dictionaries(st.text(), st.text()),
    "refresh_cache": st.none() | st.booleans(),
    "retriable": st.none() | st.booleans(),
}
OTHERS = st.dictionaries(st.text().filter(lambda name: name not in KNOWN), JSON, max_size=3)


def test_the_documented_fields_are_known() -> None:
    assert KNOWN == DOCUMENTED
    assert TIMES < KNOWN


def test_nothing_known_is_nothing_said() -> None:
    assert dump(NO_DETAILS) == {}
    assert load({}) == NO_DETAILS


@PROPERTY
@given(known=st.fixed_dictionaries(TYPES), others=OTHERS)
def test_details_come_out_as_they_went_in(known: dict[str, object], others: dict[str, object]) -> None:
    details = StateDetails(**known, others=others)
    values = dump(details)
    assert load(values) == details
    assert others.items() <= values.items()
    assert {name: value for name, value in known.items() if value not in (None, False)}.items() <= values.items()
