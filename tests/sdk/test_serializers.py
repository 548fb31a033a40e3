"""Values and arguments: there and back."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import pathlib
import typing
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane.errors import ArgumentError, PayloadError, PayloadTooLarge
from runlane.serializers import Arguments, ValueType, dump, load

if TYPE_CHECKING:
    from nowhere import Nothing  # pyright: ignore[reportMissingImports]

BIG = 2**70


class Color(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int
    y: decimal.Decimal


@dataclass
class Order:
    id: uuid.UUID
    at: dt.datetime
    where: pathlib.Path
    points: list[Point] = field(default_factory=list[Point])
    _private: int = 0


class Pair(typing.NamedTuple):
    a: int
    b: str


class Model:
    """What pydantic's models look like from outside."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and other.n == self.n

    __hash__ = None  # type: ignore[assignment]

    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"n": self.n}

    @classmethod
    def model_validate(cls, value: dict[str, Any]) -> Model:
        return cls(value["n"])


NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
ORDER = Order(uuid.UUID(int=7), NOW, pathlib.Path("a/b"), [Point(BIG, decimal.Decimal("1.50"))], 3)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (5, int),
        (True, int),
        (BIG, int),
        ([BIG, -BIG, 2**63, 2**64], list[int]),
        ({"n": BIG}, dict[str, int]),
        (1.5, float),
        ("ü€", str),
        (None, int | None),
        (NOW, dt.datetime),
        (dt.date(2026, 1, 2), dt.date),
        (dt.timedelta(days=1, microseconds=5), dt.timedelta),
        (uuid.UUID(int=5), uuid.UUID),
        (decimal.Decimal("0.10"), decimal.Decimal),
        (b"\x00\xff", bytes),
        (pathlib.Path("x/y"), pathlib.Path),
        ([pathlib.Path("x")], list[pathlib.Path]),
        (pathlib.Path("x"), pathlib.Path | None),
        ({1, 2}, set[int]),
        ((1, "a"), tuple[int, str]),
        ({1: "a"}, dict[int, str]),
        ({uuid.UUID(int=1): 2}, dict[uuid.UUID, int]),
        (Color.RED, Color),
        (Point(1, decimal.Decimal("2.0")), Point),
        (ORDER, Order),
        ([ORDER], list[Order]),
        (Pair(1, "x"), Pair),
        (Model(3), Model),
        ([Model(3)], list[Model]),
        ({"a": [1, None, "x"]}, Any),
        ({"a": 1}, object),
        ([1, 2], typing.Iterable[int]),
        ("x", pathlib.Path | str),
        ("5", int | str),
    ],
)
def test_values_come_back_as_annotated(value: Any, annotation: Any) -> None:
    back = ValueType(annotation).convert(load(dump(value, "it"), "it"), "it")
    assert back == value
    assert type(back) is type(value)


def test_text_for_a_number_is_taken_as_meant() -> None:
    assert ValueType(int).convert("5", "it") == 5


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "no JSON form is known for builtins.object"),
        ({"a": [lambda: 1]}, "builtins.function"),
        (float("nan"), "not JSON compliant"),
        ([None, float("inf")], "not JSON compliant"),
        ("\ud800", "surrogates"),
        ({(1, 2): 3}, "it cannot be sent"),
        ([[]] * 3 + [json.loads("[" * 64 + "]" * 64)], "deeper than 64"),
    ],
)
def test_what_has_no_json_form_is_refused(value: Any, says: str) -> None:
    with pytest.raises(PayloadError, match=says):
        dump(value, "it")


def test_a_loop_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(PayloadError):
        dump(loop, "it")


def test_size_is_limited_in_bytes() -> None:
    dump("ü" * 9, "it", 20)
    with pytest.raises(PayloadTooLarge, match="it has 22 bytes; at most 20"):
        dump("ü" * 10, "it", 20)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_plain_json_survives(value: Any) -> None:
    assert load(dump(value, "it"), "it") == value


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    arguments = Arguments(function)
    positional, keywords = arguments.unpack(arguments.pack(args, kwargs))
    return function(*positional, **keywords)


def test_every_kind_of_parameter_travels_by_name() -> None:
    def function(
        a: int, /, b: Color, *rest: dt.date, c: bytes = b"c", d: Nothing = None, **more: decimal.Decimal
    ) -> Any:
        return a, b, rest, c, d, more

    day = dt.date(2026, 1, 1)
    expected = (1, Color.RED, (day, day), b"c", "d", {"e": decimal.Decimal(1)})
    assert call(function, 1, Color.RED, day, day, d="d", e=decimal.Decimal(1)) == expected
    packed = Arguments(function).pack((1, Color.RED, day), {"e": decimal.Decimal(1)})
    assert json.loads(bytes(packed)) == {"a": 1, "b": "red", "rest": ["2026-01-01"], "more": {"e": "1"}}
    assert call(function, 1, b=Color.RED) == (1, Color.RED, (), b"c", None, {})


def test_a_default_of_none_may_be_given() -> None:
    def function(a: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return a

    assert call(function, None) is None


def test_a_call_that_does_not_fit_is_refused_as_python_does() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        Arguments(lambda a: a).pack((), {})


def test_the_argument_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(ArgumentError, match="argument 'b' cannot be sent"):
        Arguments(lambda a, b: a).pack((1, object()), {})
    with pytest.raises(PayloadTooLarge, match="the arguments has"):
        Arguments(lambda a, b: a).pack((1, "x" * 600_000), {})


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"{}", "argument 'a' is missing"),
        (b'{"a":1,"z":2}', "unknown argument 'z'"),
        (b'{"a":"x"}', "argument 'a': Expected `int`"),
        (b"[1]", "no JSON object"),
        (b'{"a":', "no JSON"),
    ],
)
def test_bad_payloads_are_refused(payload: bytes, says: str) -> None:
    def function(a: int) -> None: ...

    with pytest.raises(ArgumentError, match=says):
        Arguments(function).unpack(msgspec.Raw(payload))
