"""Annotations of functions, read leniently: what cannot be resolved counts as not annotated."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_type_hints


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the function's resolved annotations by name; `return` is among them.

    A name that exists for type checkers only (`if TYPE_CHECKING:`) loses its own annotation, not the others.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:
        return _one_by_one(function)


def _one_by_one(function: Callable[..., Any]) -> dict[str, Any]:
    scope: dict[str, Any] = getattr(function, "__globals__", {})
    annotations: dict[str, Any] = getattr(function, "__annotations__", {})
    hints: dict[str, Any] = {}
    for name, annotation in annotations.items():
        try:
            one = SimpleNamespace(__annotations__={name: annotation})
            hints.update(get_type_hints(one, globalns=scope, include_extras=True))
        except Exception:  # noqa: S112  (an annotation may fail in any way)
            continue
    return hints
