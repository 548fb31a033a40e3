"""The mutants fit the tree as it is; and two of them are really found. All of them: `make mutants`."""

from __future__ import annotations

import pytest

from .mutants import MUTANTS, ROOT, Mutant, hunt


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits(mutant: Mutant) -> None:
    for edit in mutant.edits:
        text = (ROOT / "broker" / "runlane_broker" / edit.file).read_text(encoding="utf-8")
        assert text.count(edit.old) == 1, f"adapt it: {edit.file} has changed"
        assert edit.old != edit.new


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.process
@pytest.mark.parametrize("name", ["attempt-reused", "first-window-only"])
def test_a_mutant_is_found(name: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    found = hunt(mutant)
    assert found is not None
    assert "seed" in found
