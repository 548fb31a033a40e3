"""The arguments of a call: a JSON object by parameter name.

`*args` travels as a list and `**kwargs` as an object, each under its own name, so that every call has one
form. Defaults are not sent: they are those of the function that runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ..errors import ArgumentError, PayloadError, PayloadTooLarge
from ..protocol.limits import MAX_PAYLOAD_BYTES
from .hints import hints_of
from .values import ValueType, dump, load

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Arguments:
    """How one function's arguments are packed and unpacked."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        hints = hints_of(function)
        self._types = {p.name: _type_of(p, hints) for p in self._signature.parameters.values()}
        self._required = frozenset(p.name for p in self._signature.parameters.values() if _is_required(p))

    def pack(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int = MAX_PAYLOAD_BYTES
    ) -> msgspec.Raw:
        """Return the call's arguments as a payload of at most `limit` bytes.

        Raises `TypeError`, as the call itself would, where they do not fit the signature; `ArgumentError`
        naming the argument that cannot be sent; `PayloadTooLarge` where they are too many.
        """
        arguments = self._signature.bind(*args, **kwargs).arguments
        try:
            return dump(arguments, "the arguments", limit)
        except PayloadTooLarge:
            raise
        except PayloadError as exc:
            raise _blame(arguments, exc) from exc

    def unpack(self, payload: msgspec.Raw) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the keyword arguments of a call. Raises `ArgumentError`."""
        try:
            values = load(payload, "the parameters")
            self._check_names(values)
            bound = inspect.BoundArguments(self._signature, self._converted(values))  # type: ignore[arg-type]
        except PayloadError as exc:
            raise ArgumentError(str(exc)) from exc
        bound.apply_defaults()
        return bound.args, bound.kwargs

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
            raise ArgumentError("the parameters are no JSON object")
        given: set[str] = set(values)  # pyright: ignore[reportUnknownArgumentType]
        if unknown := sorted(given - self._types.keys()):
            raise ArgumentError(f"unknown argument {unknown[0]!r}")
        if missing := sorted(self._required - given):
            raise ArgumentError(f"argument {missing[0]!r} is missing")


def _type_of(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> ValueType:
    hint = hints.get(parameter.name, Any)
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return ValueType(tuple[hint, ...])
    return ValueType(dict[str, hint] if parameter.kind is inspect.Parameter.VAR_KEYWORD else hint)


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty and parameter.kind not in _VARIADIC


def _blame(arguments: Mapping[str, Any], error: PayloadError) -> ArgumentError:
    """Find the argument that cannot be sent."""
    for name, value in arguments.items():
        try:
            dump(value, f"argument {name!r}")
        except PayloadError as exc:
            return ArgumentError(str(exc))
    return ArgumentError(str(error))
