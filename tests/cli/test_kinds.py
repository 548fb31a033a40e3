"""Kinds of values: what is read, and that what is shown is read as the same."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane.commands.console import one_line
from runlane.config import ConfigError
from runlane.config.kinds import Database, Kind, Seconds, Sizes, Text, Url, Whole


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("0.5", 0.5),
        ("1e2", 100),
        ("500ms", 0.5),
        ("30s", 30),
        ("5 m", 300),
        ("1.5h", 5400),
        (" 2d ", 172800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert Seconds().read(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "1w", "5M", "inf", "-inf", "1e999", "1.2.3s", "0x10", "10 weeks", "ms5"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a duration"):
        Seconds().read(text)


@pytest.mark.parametrize("value", [-1, "-1", "-0.001"])
def test_time_does_not_run_backwards(value: object) -> None:
    with pytest.raises(ConfigError, match="must be 0 seconds or more"):
        Seconds(may_be_zero=True).read(value)
    assert Seconds(may_be_zero=True).read("0") == 0


def test_a_long_value_is_cut_in_a_message() -> None:
    with pytest.raises(ConfigError) as caught:
        Whole(0, 1).read("x" * 10_000)
    assert len(str(caught.value)) < 120


def test_a_password_is_not_shown() -> None:
    assert Database().show("postgresql://u:pa:ss@h/d") == '"postgresql://u:********@h/d"'
    assert Database().harmless("sqlite:///x@y:z") == "sqlite:///x@y:z"


def test_a_kind_reads() -> None:
    with pytest.raises(NotImplementedError):
        Kind().read("x")


KEYS = st.from_regex(r"[\w.:<>/-]{1,20}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), min_size=1)
KINDS = st.one_of(
    st.tuples(st.just(Text()), TEXTS),
    st.tuples(st.just(Whole(-100, 100)), st.integers(-100, 100)),
    st.tuples(st.just(Seconds(may_be_zero=True)), st.integers(0, 10**9).map(lambda ms: ms / 1000)),
    st.tuples(st.just(Url()), st.sampled_from(["http://h", "https://[::1]:1/x", "http://h.example:4200"])),
    st.tuples(st.just(Sizes(Whole(1, 9))), st.dictionaries(KEYS, st.integers(1, 9))),
)


@given(KINDS)
def test_what_is_shown_is_toml_and_means_the_same(case: tuple[Kind, object]) -> None:
    kind, value = case
    assert kind.read(tomllib.loads(f"x = {kind.show(value)}")["x"]) == value


@given(st.text())
def test_one_line_is_one(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in line)
