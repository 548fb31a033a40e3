"""The arguments of a call: a JSON object by parameter name.

`*args` travels as a list and `**kwargs` as an object, each under its own name, so that every call has one
form. Defaults are not sent: they are those of the function that runs. In another form than JSON the object has
one member, `data`, with all of them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, cast

import msgspec

from ..errors import ArgumentError, PayloadError, PayloadTooLarge
from ..protocol.limits import MAX_PAYLOAD_BYTES
from .blame import trace
from .hints import hints_of
from .serializer import CONTENT_TYPE, JsonSerializer, Serializer, seal, unseal
from .values import ValueType, check, dump, load

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_WHAT: Final = "the arguments"


class Arguments:
    """How one function's arguments are packed and unpacked."""

    def __init__(self, function: Callable[..., Any], serializer: Serializer | None = None) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        self._serializer = serializer
        self._required = frozenset(p.name for p in self._signature.parameters.values() if _is_required(p))

    def __str__(self) -> str:
        """Say what is called, and with what."""
        return f"{getattr(self._function, '__qualname__', 'the task')}{self._signature}"

    @cached_property
    def _types(self) -> Mapping[str, ValueType]:
        # When they are first needed: annotations may name what is defined further down in the module.
        hints = hints_of(self._function)
        return {p.name: _type_of(p, hints) for p in self._signature.parameters.values()}

    @property
    def headers(self) -> dict[str, str]:
        """What the headers of a run with these arguments must say."""
        return {} if self._serializer is None else {CONTENT_TYPE: self._serializer.content_type}

    def pack(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int = MAX_PAYLOAD_BYTES
    ) -> msgspec.Raw:
        """Return the call's arguments as a payload of at most `limit` bytes.

        Raises `TypeError`, as the call itself would, where they do not fit the signature; `ArgumentError`
        naming the argument that cannot be sent; `PayloadTooLarge` naming the largest where they are too large.
        """
        try:
            arguments = self._signature.bind(*args, **kwargs).arguments
        except TypeError as exc:
            raise TypeError(f"{exc}: {self}") from None
        try:
            return self._dump(arguments, limit)
        except PayloadTooLarge as exc:
            raise PayloadTooLarge(f"{self._largest(arguments)}; {exc}") from None
        except PayloadError as exc:
            raise self._blame(arguments, exc) from exc

    def unpack(
        self, payload: msgspec.Raw, headers: Mapping[str, str] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the keyword arguments of a call. Raises `ArgumentError`.

        `headers` are those of the run: a task with a serializer of its own takes no other form.
        """
        try:
            values = self._load(payload, headers or {})
            self._check_names(values)
            bound = inspect.BoundArguments(self._signature, self._converted(values))  # type: ignore[arg-type]
        except PayloadError as exc:
            raise ArgumentError(str(exc)) from exc
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def _dump(self, arguments: Mapping[str, Any], limit: int = MAX_PAYLOAD_BYTES) -> msgspec.Raw:
        if self._serializer is None:
            return dump(arguments, _WHAT, limit)
        sealed = seal(self._serializer, dict(arguments), _WHAT)
        return check(b'{"data":%b}' % sealed, _WHAT, limit)

    def _load(self, payload: msgspec.Raw, headers: Mapping[str, str]) -> Any:
        wanted = self._serializer or JsonSerializer()
        form = headers.get(CONTENT_TYPE, JsonSerializer.content_type)
        if form != wanted.content_type:
            raise ArgumentError(f"{_WHAT} are {form}, and this task takes {wanted.content_type}")
        values = load(payload, _WHAT)
        if self._serializer is None:
            return values
        sealed = cast("dict[str, Any]", values).get("data") if isinstance(values, dict) else None
        return unseal(self._serializer, sealed, _WHAT)

    def _largest(self, arguments: Mapping[str, Any]) -> str:
        """Name the argument that takes the most room, where several are too large together."""
        sizes = {name: len(self._encode(name, value)) for name, value in arguments.items()}
        name = max(sizes, key=sizes.__getitem__)
        return f"argument {name!r}: {sizes[name]} bytes of JSON"

    def _blame(self, arguments: Mapping[str, Any], error: PayloadError) -> ArgumentError:
        """Name the argument that cannot be sent."""
        for name, value in arguments.items():
            try:
                self._encode(name, value)
            except PayloadError as exc:
                found = trace(value, f"argument {name!r}", exc) if self._serializer is None else exc
                return ArgumentError(str(found))
        return ArgumentError(str(error))

    def _encode(self, name: str, value: object) -> bytes:
        """Encode one argument alone. Raises `PayloadError`."""
        what = f"argument {name!r}"
        if self._serializer is None:
            return bytes(dump(value, what, sys.maxsize))
        return seal(self._serializer, {name: value}, what)

    def _converted(self, values: dict[str, Any]) -> dict[str, Any]:
        parameters = self._signature.parameters
        return {
            name: value
            if value is None and parameters[name].default is None
            else self._types[name].convert(value, f"argument {name!r}")
            for name, value in values.items()
        }

    def _check_names(self, values: Any) -> None:
        if not isinstance(values, dict):
            raise ArgumentError(f"{_WHAT} are no JSON object")
        given: set[str] = set(values)  # pyright: ignore[reportUnknownArgumentType]
        if unknown := sorted(given - self._signature.parameters.keys()):
            raise ArgumentError(f"unknown argument {unknown[0]!r}: {self}")
        if missing := sorted(self._required - given):
            raise ArgumentError(f"argument {missing[0]!r} is missing: {self}")


def _type_of(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> ValueType:
    hint = hints.get(parameter.name, Any)
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return ValueType(tuple[hint, ...])
    return ValueType(dict[str, hint] if parameter.kind is inspect.Parameter.VAR_KEYWORD else hint)


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty and parameter.kind not in _VARIADIC
