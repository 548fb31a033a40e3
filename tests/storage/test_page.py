"""docs/http.md shows the filters as they are."""

from __future__ import annotations

import pytest

from . import page


@pytest.mark.parametrize("table", page.tables(), ids=["operators", *page.GROUPS])
def test_the_page_shows_the_filters(table: str) -> None:
    assert table in page.PAGE.read_text(encoding="utf-8")


def test_the_page_explains_every_operator() -> None:
    assert set(page.OPERATORS) == page.used_operators()
