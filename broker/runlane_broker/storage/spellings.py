"""SQL functions that each dialect spells in its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import NULLTYPE, TypeEngine


def spelt(name: str, result: TypeEngine[Any] = NULLTYPE, **spellings: str) -> type[GenericFunction[Any]]:
    """Return a SQL function. `spellings` are its texts by dialect, with `{}` in the place of the arguments."""
    function = type(name, (GenericFunction,), {"inherit_cache": True, "name": name, "type": result})
    for dialect, text in spellings.items():
        compiles(function, dialect)(_spelling(text))
    return function


def _spelling(text: str) -> Callable[..., str]:
    def spell(element: GenericFunction[Any], compiler: Any, **options: Any) -> str:
        return text.format(compiler.process(element.clauses, **options))

    return spell
