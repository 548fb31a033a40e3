"""Values and arguments: there and back."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import os
import pathlib
import subprocess
import sys
import typing
import uuid
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane.errors import ArgumentError, PayloadError, PayloadTooLarge
from runlane.serializers import Arguments, JsonSerializer, Results, ValueType, dump, load
from runlane.worker import outcomes

from .fake_broker import pushed

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

    def model_dump(self, mode: str, **_: bool) -> dict[str, Any]:
        assert mode == "json"
        return {"n": self.n}

    @classmethod
    def model_validate(cls, value: dict[str, Any]) -> Model:
        if not isinstance(value["n"], int):
            raise ValueError("n is no integer")
        return cls(value["n"])


@dataclass
class Circle:
    radius: int


@dataclass
class Square:
    side: int


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
        (dt.time(1, 2, 3, 4), dt.time),
        (dt.time(1, 2, tzinfo=dt.UTC), dt.time),
        (dt.timedelta(days=1, microseconds=5), dt.timedelta),
        (dt.timedelta(seconds=-1), dt.timedelta),
        (uuid.UUID(int=5), uuid.UUID),
        (decimal.Decimal("0.10"), decimal.Decimal),
        (b"\x00\xff", bytes),
        (pathlib.Path("x/y"), pathlib.Path),
        ([pathlib.Path("x")], list[pathlib.Path]),
        (pathlib.Path("x"), pathlib.Path | None),
        (bytearray(b"x"), bytearray),
        ({1, 2}, set[int]),
        (frozenset({"a"}), frozenset[str]),
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
        (pathlib.Path("x"), pathlib.Path | int),
        ("5", int | str),
        (Square(1), Circle | Square),
        (Circle(1), typing.Union[Circle, Square]),  # noqa: UP007
        (None, Circle | Square | None),
    ],
)
def test_values_come_back_as_annotated(value: Any, annotation: Any) -> None:
    back = ValueType(annotation).convert(load(dump(value, "it"), "it"), "it")
    assert back == value
    assert type(back) is type(value)


def test_text_for_a_number_is_taken_as_meant() -> None:
    assert ValueType(int).convert("5", "it") == 5


def test_what_fits_no_type_of_a_union_is_told() -> None:
    with pytest.raises(PayloadError, match=r"it: Expected `.*Circle \| .*Square`, got `int`"):
        ValueType(Circle | Square).convert(5, "it")


def test_what_a_model_says_of_its_value_is_told() -> None:
    with pytest.raises(PayloadError, match="it: n is no integer"):
        ValueType(Model).convert({"n": "x"}, "it")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "it: no JSON form is known for builtins.object"),
        ({"a": [lambda: 1]}, "builtins.function"),
        (float("nan"), "not JSON compliant"),
        ([None, float("inf")], "not JSON compliant"),
        ("\ud800", "surrogates"),
        ({(1, 2): 3}, "it: Only dicts with"),
        ([[]] * 3 + [json.loads("[" * 64 + "]" * 64)], "it nests deeper than 64"),
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
    with pytest.raises(ArgumentError, match="argument 'a'"):
        Arguments(lambda a: a).pack((loop,), {})


def test_size_is_limited_in_bytes() -> None:
    dump("ü" * 9, "it", 20)
    with pytest.raises(PayloadTooLarge, match="it: 22 bytes of JSON; at most 20"):
        dump("ü" * 10, "it", 20)


def test_the_same_set_has_the_same_bytes_everywhere() -> None:
    program = "import sys; from runlane.serializers import dump; print(bytes(dump({'a', 'b', 'c', 'd'}, 'it')))"
    outputs = {
        subprocess.run(
            (sys.executable, "-c", program),
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert len(json.loads(bytes(dump({1, "a"}, "it")))) == 2  # what has no order has none


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


class Mixed(enum.Enum):
    ONE = 1
    HALF = 0.5
    PAIR = (1, "x")
    NONE = None


@pytest.mark.parametrize("member", Mixed)
def test_members_of_any_enum_survive(member: Mixed) -> None:
    def function(one: Mixed, other: Mixed | None) -> Any:
        return one, other

    assert call(function, member, None if member is Mixed.NONE else member)[0] is member
    with pytest.raises(ArgumentError, match=r"argument 'one': 7 is no value of Mixed"):
        call(function, 7, None)


def test_annotations_may_name_what_is_defined_later() -> None:
    module = ModuleType("later")
    program = """
from __future__ import annotations
from dataclasses import dataclass
from runlane import task

@task(key="later")
def function(one: Later) -> Later:
    return one

@dataclass
class Later:
    x: int
"""
    sys.modules["later"] = module
    try:
        exec(program, vars(module))
        later = module.Later(5)
        (one,), _ = module.function.arguments.unpack(module.function.arguments.pack((later,), {}))
        assert one == module.function.results.unpack(module.function.results.pack(later)) == later
    finally:
        del sys.modules["later"]


def test_a_default_of_none_may_be_given() -> None:
    def function(a: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return a

    assert call(function, None) is None


def test_a_call_that_does_not_fit_is_refused_as_python_does() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        Arguments(lambda a: a).pack((), {})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "argument 'b': no JSON form is known for builtins.object"),
        ([1, {"when": object()}], r"argument 'b'\[1\]\['when'\]: no JSON form"),
        (Circle(typing.cast("int", {1: float("nan")})), r"argument 'b'.radius\[1\]: Out of range float"),
        (Point(1, typing.cast("decimal.Decimal", (object(),))), r"argument 'b'.y\[0\]: no JSON form"),
        (json.loads("[" * 65 + "]" * 65), "argument 'b' nests deeper than 64 levels"),
        (json.loads("[" * 64 + "]" * 64), "the arguments nests deeper than 64 levels"),
    ],
)
def test_the_argument_that_cannot_be_sent_is_named(value: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        Arguments(lambda a, b: a).pack((1, value), {})


def test_the_largest_argument_is_named_with_the_limit() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        Arguments(lambda a, b, c: a).pack((1, "x" * 300_000, "x" * 290_000), {})
    said = "argument 'b': 300002 bytes of JSON; the arguments: 590021 bytes of JSON; at most 524288 (512 KiB)"
    assert str(caught.value) == said


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


# --- Other forms than JSON ----------------------------------------------------------------------------------


class Msgpack:
    """A user's serializer of bytes that are no text."""

    content_type = "application/msgpack"

    def dumps(self, value: Any) -> bytes:
        return msgspec.msgpack.encode(value)

    def loads(self, data: bytes) -> Any:
        return msgspec.msgpack.decode(data)


class Backwards(JsonSerializer):
    """What an encrypting serializer looks like."""

    content_type = "application/x-backwards"

    def dumps(self, value: Any) -> bytes:
        return super().dumps(value)[::-1]

    def loads(self, data: bytes) -> Any:
        return super().loads(data[::-1])


def total(order: Order, when: dt.datetime, *more: int) -> decimal.Decimal:
    return decimal.Decimal(len(order.points) + when.year + sum(more))


@pytest.mark.parametrize("serializer", [Msgpack(), Backwards(), JsonSerializer()])
def test_a_serializer_makes_the_form_and_annotations_the_types(serializer: Any) -> None:
    arguments, results = Arguments(total, serializer), Results(decimal.Decimal, serializer)
    assert arguments.headers == {"content-type": serializer.content_type}
    order = (
        Order(uuid.UUID(int=7), NOW, pathlib.Path("a/b")) if serializer.content_type[12:] != "msgpack" else None
    )
    given = order or {"id": uuid.UUID(int=7), "at": NOW, "where": "a/b"}
    payload = arguments.pack((given, NOW, 1, 2), {})
    assert json.loads(bytes(payload)).keys() == {"data"}
    args, kwargs = arguments.unpack(payload, arguments.headers)
    assert args == (Order(uuid.UUID(int=7), NOW, pathlib.Path("a/b")), NOW, 1, 2)
    assert kwargs == {}
    result = results.pack(total(*args))
    assert isinstance(json.loads(bytes(result)), str)
    assert results.unpack(result) == decimal.Decimal(2029)


def test_who_lacks_the_serializer_is_kept_out() -> None:
    """In both directions: the wrong form, and the right name on something else."""
    sealed, plain = Arguments(total, Backwards()), Arguments(total)
    packed = sealed.pack(({"id": 1}, NOW), {})
    with pytest.raises(ArgumentError, match="are application/x-backwards, and this task takes application/json"):
        plain.unpack(packed, sealed.headers)
    with pytest.raises(ArgumentError, match="are application/json, and this task takes application/x-backwards"):
        sealed.unpack(plain.pack(({"id": 1}, NOW), {}), {})
    for payload in (b"{}", b'{"data":5}', b'{"data":"?"}', b"[]"):
        with pytest.raises(ArgumentError, match="not in the form application/x-backwards"):
            sealed.unpack(msgspec.Raw(payload), sealed.headers)
    with pytest.raises(ArgumentError, match="the arguments: application/x-backwards: PayloadError"):
        sealed.unpack(msgspec.Raw(b'{"data":"AAAA"}'), sealed.headers)
    with pytest.raises(PayloadError, match="the result: not in the form"):
        Results(int, Backwards()).unpack(msgspec.Raw(b"5"))


def test_what_a_serializer_cannot_do_is_told_of_the_argument() -> None:
    def function(a: Any, b: Any = None) -> None: ...

    with pytest.raises(ArgumentError, match="argument 'b': application/msgpack: TypeError: "):
        Arguments(function, Msgpack()).pack((1, object()), {})
    with pytest.raises(PayloadTooLarge, match=r"argument 'b': \d+ bytes .* at most 524288 \(512 KiB\)"):
        Arguments(function, Msgpack()).pack((1, "x" * 400_000), {})


# --- Pydantic, where it is installed ----------------------------------------------------------------------------


def test_pydantic_models_there_and_back() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Line(pydantic.BaseModel):
        price: decimal.Decimal
        when: dt.datetime = pydantic.Field(alias="When")

    class Bill(pydantic.BaseModel):
        lines: list[Line]
        paid: set[int]

    bill = Bill(lines=[Line(price="1.50", When=NOW)], paid={1})
    for value, annotation in (
        (bill, Bill),
        ([bill], list[Bill]),
        (bill, Bill | None),
        ({"a": bill}, dict[str, Bill]),
    ):
        assert ValueType(annotation).convert(load(dump(value, "it"), "it"), "it") == value
    with pytest.raises(PayloadError, match="it: 2 validation errors for Bill"):
        ValueType(Bill).convert({"lines": 5}, "it")


def test_an_argument_of_the_wrong_name_is_told_with_the_signature() -> None:
    def add(a: int, b: int = 1) -> int:
        return a + b

    arguments = Arguments(add)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'c': .*add\(a: .*int.*, b: .*int.* = 1\)"):
        arguments.pack((1,), {"c": 2})
    with pytest.raises(ArgumentError, match=r"unknown argument 'c': .*add\(a: "):
        arguments.unpack(msgspec.Raw(b'{"a": 1, "c": 2}'))


def test_the_report_of_bad_arguments_has_no_frames_of_ours() -> None:
    def add(a: int) -> None: ...

    run = pushed("add", a="x")
    with pytest.raises(ArgumentError) as caught:
        Arguments(add).unpack(run.parameters)
    frames = caught.tb.tb_next  # without the test's own frame, which no worker has
    error = caught.value.with_traceback(frames)
    report = msgspec.json.decode(outcomes.failed(run, error).error)
    assert report["traceback"] == f"runlane.errors.ArgumentError: {report['message']}\n"


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, [{"x": ({2: 0, "2": 0},)}], {True: 0, "true": 1}])
def test_keys_that_are_the_same_in_json_are_refused(value: object) -> None:
    with pytest.raises(PayloadError, match="two keys of a dict are the same text in JSON"):
        dump(value, "it")


def test_keys_of_one_kind_are_sent() -> None:
    keys = {1: "a", 2: "b"}
    assert load(dump(keys, "it"), "it") == {"1": "a", "2": "b"}
