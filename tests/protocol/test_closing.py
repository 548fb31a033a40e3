"""Close codes."""

from __future__ import annotations

import pytest

from runlane.protocol.closing import CloseCode, may_reconnect


@pytest.mark.parametrize("code", [1008, 4001, 4403])
def test_there_is_no_use_in_coming_back_after_these(code: int) -> None:
    assert not may_reconnect(code)


@pytest.mark.parametrize("code", [None, 1000, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 4408, 4409, 4429, 4999])
def test_everything_else_is_worth_another_try(code: int | None) -> None:
    assert may_reconnect(code)


def test_own_codes_are_in_the_range_for_private_use() -> None:
    assert {code for code in CloseCode if code >= 3000} <= set(range(4000, 5000))
