"""Hypothesis strategies for frames, derived from their annotations: a new frame needs nothing here."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as mi

from runlane.protocol.ids import ID_PATTERN
from runlane.protocol.messages import Subscribe

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PAYLOADS = _JSON.map(lambda value: msgspec.Raw(msgspec.json.encode(value)))

_OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
_TIMES = st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1), timezones=_OFFSETS)  # noqa: DTZ001


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Return instances of a struct, with some of its optional fields."""
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    required = {f.name: _of(f.type) for f in info.fields if f.required}
    optional = {f.name: _of(f.type) for f in info.fields if not f.required}
    fields = st.fixed_dictionaries(required, optional=optional)
    if kind is Subscribe:
        fields = fields.filter(lambda given: bool(given.get("keys") or given.get("queues")))
    return fields.map(lambda fields: kind(**fields))


def _of(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.Metadata(type=inner):
            return _of(inner)
        case mi.UnionType(types=types):
            return st.one_of(*map(_of, types))
        case mi.NoneType():
            return st.none()
        case mi.BoolType():
            return st.booleans()
        case mi.IntType(ge=low, le=high):
            return st.integers(-(2**53) if low is None else low, 2**53 if high is None else high)
        case mi.FloatType(gt=above, ge=low, le=high):
            return st.floats(
                above if low is None else low,
                high,
                exclude_min=above is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case mi.StrType(pattern=pattern) if pattern == ID_PATTERN:
            return st.uuids().map(str)
        case mi.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case mi.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=min(high or 8, 8))
        case mi.DateTimeType(tz=True):
            return _TIMES
        case mi.VarTupleType(item_type=item, min_length=low):
            return st.lists(_of(item), min_size=low or 0, max_size=3).map(tuple)
        case mi.DictType(key_type=key, value_type=value):
            return st.dictionaries(_of(key), _of(value), max_size=3)
        case mi.LiteralType(values=values):
            return st.sampled_from(sorted(values))
        case mi.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case mi.RawType():
            return PAYLOADS
        case mi.StructType(cls=cls):
            return structs(cls)
        case _:
            raise NotImplementedError(f"no strategy for {info}")
