"""What all bodies share."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias, TypeGuard

from msgspec import Meta, Raw, Struct

from ..errors import Invalid
from .ids import lower_ids

#: What a list returns at most, and where nobody says how many.
MAX_LIMIT: Final = 200

#: An object that passes through as the bytes it came in.
JsonObject: TypeAlias = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
#: The same, or null. (Of `Raw | None` msgspec takes null and nothing else.)
ObjectOrNull: TypeAlias = Annotated[Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
#: Any JSON that passes through as the bytes it came in.
Json: TypeAlias = Raw

#: How many of a list; absent or null, as many as there may be.
Limit: TypeAlias = (
    Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_LIMIT, "default": MAX_LIMIT})] | None
)
#: How many of a list to leave out first.
Offset: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)] | None


def empty_object() -> Raw:
    """Return what an object is that was not given."""
    return Raw(b"{}")


def is_given(value: object) -> TypeGuard[Raw]:
    """Say whether there is something, and not null."""
    return isinstance(value, Raw) and bytes(value) != b"null"


def check_objects(body: Any, *names: str, nullable: tuple[str, ...] = ()) -> None:
    """Raise `Invalid` unless these fields, where they are given, are objects; the nullable ones may be null."""
    for name in (*names, *nullable):
        value = getattr(body, name)
        given = isinstance(value, Raw) if name in names else is_given(value)
        if given and bytes(value)[:1] != b"{":
            raise Invalid("Expected `object`", name)


class Request(Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of request bodies: an unknown field is a mistake that somebody should hear of."""

    def __post_init__(self) -> None:
        lower_ids(self)


class Parameters(Struct, kw_only=True):
    """Base of bodies that hold a query's parameters side by side.

    As at the Prefect server the whole body may be absent, and a key that is unknown at its top is ignored.
    """

    def __post_init__(self) -> None:
        lower_ids(self)


class Paged(Parameters):
    """Which part of a list."""

    limit: Limit = None
    offset: Offset = None

    def check(self) -> None:
        """Raise `Invalid` for a limit out of range."""
        check_limit(self.limit)

    @property
    def size(self) -> int:
        """How many."""
        return MAX_LIMIT if self.limit is None else self.limit


class Response(Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of response bodies."""


def check_limit(limit: int | None) -> None:
    """Raise `Invalid`, in the words of the Prefect server."""
    if limit is None or 0 <= limit <= MAX_LIMIT:
        return
    bound = "greater than or equal to 0" if limit < 0 else f"less than or equal to {MAX_LIMIT}"
    raise Invalid(f"Invalid limit: must be {bound}.", "limit")


# Errors ------------------------------------------------------------------------------------------------------


class Error(Struct, kw_only=True, omit_defaults=True):
    """Why a request was refused."""

    detail: str
    exception_message: str
    code: str | None = None


class ErrorDetail(Struct, kw_only=True):
    """One thing that is wrong: where it stands, what it is, and of which kind."""

    loc: list[str | int]
    msg: str
    type: str


class InvalidRequest(Struct, kw_only=True):
    """What is wrong with a request. `request_body` is the beginning of what was sent."""

    detail: list[ErrorDetail]
    exception_message: str
    exception_detail: list[ErrorDetail]
    request_body: Any
