from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from runlane.protocol.states import StateType
from runlane_broker.orchestration.diagram import page
from runlane_broker.orchestration.policies import POLICIES
from runlane_broker.orchestration.rules import Policy
from runlane_broker.orchestration.states import may_follow

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def test_the_page_is_what_the_tables_say() -> None:
    """`python -m runlane_broker.orchestration.diagram > docs/states.md` makes it so."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_drawing_has_every_transition_and_no_other() -> None:
    drawing = page().split("```")[1]
    ends = drawing.partition("state ended {")[2].partition("}")[0].split()
    arrows = [line.split(" --> ") for line in drawing.splitlines() if "-->" in line]
    drawn = {
        (None if start == "[*]" else StateType(start.strip()), StateType(end))
        for start, group in ((start.strip(), group.strip()) for start, group in arrows)
        for end in (ends if group == "ended" else [group])
        if start != "ended"
    }
    assert drawn == {pair for pair in product([None, *StateType], StateType) if may_follow(*pair)}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_each_rule_says_what_it_does_and_what_about(policy: Policy) -> None:
    assert len({rule.name for rule in policy.rules}) == len(policy.rules)
    for rule in policy.rules:
        assert rule.summary.endswith(".")
        assert rule.leaving
        assert rule.entering
