"""Ids."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlane.protocol.ids import is_id, uuid7

_TIMES = st.integers(0, 2**63 - 1)
_BITS = st.integers(0, 2**64 - 1)


@settings(derandomize=True)
@given(_TIMES, _BITS)
def test_version_variant_time_and_randomness_are_where_rfc_9562_has_them(time_ns: int, bits: int) -> None:
    text = uuid7(time_ns, bits)
    assert is_id(text)
    value = uuid.UUID(text)
    assert (str(value), value.version, value.variant) == (text, 7, uuid.RFC_4122)
    assert value.int >> 80 == time_ns // 1_000_000
    assert (value.int >> 64) & 0xFFF == time_ns % 1_000_000 * 4096 // 1_000_000
    assert value.int & (2**62 - 1) == bits & (2**62 - 1)


@settings(derandomize=True)
@given(st.lists(_TIMES, min_size=2), _BITS)
def test_ids_sort_by_time(times: list[int], bits: int) -> None:
    ids = [uuid7(time_ns, bits) for time_ns in sorted(times)]
    assert ids == sorted(ids)


@settings(derandomize=True)
@given(_TIMES)
def test_a_quarter_of_a_microsecond_is_told_apart_whatever_the_randomness(time_ns: int) -> None:
    assert uuid7(time_ns, 2**64 - 1) < uuid7(time_ns + 245, 0)


def test_by_default_the_time_is_now_and_no_two_are_alike() -> None:
    before = time.time_ns()
    ids = [uuid7() for _ in range(1000)]
    after = time.time_ns()
    assert len(set(ids)) == 1000
    assert all(before // 1_000_000 <= uuid.UUID(text).int >> 80 <= after // 1_000_000 for text in ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0192f3a05c1e7d2a9b3f4e5d6c7b8a90",
        "0192F3A0-5C1E-7D2A-9B3F-4E5D6C7B8A90",
        "{0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90}",
        "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90\n",
        " 0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90",
        "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a9",
        "0192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a9g",
        "٠192f3a0-5c1e-7d2a-9b3f-4e5d6c7b8a90",  # noqa: RUF001  (an Arabic zero, which \d would let in)
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)
