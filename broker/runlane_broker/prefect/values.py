"""Variables and artifacts: what tasks keep under a name, and read back. Here they mean nothing."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from ..api.routes import Handler, Route
from ..core.core import Core
from ..errors import Conflict
from ..schemas.base import Paged
from ..schemas.ids import Id
from .blocks import TAG, shown

_Object: TypeAlias = dict[str, Any]
_Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255)]

_VARIABLE: Final = "variable"
_ARTIFACT: Final = "artifact"


class VariableCreate(Struct):
    """A value under a name of its own."""

    name: _Name
    value: Any
    tags: list[str] = field(default_factory=list[str])


class VariableUpdate(Struct):
    """What is new about a variable. Its name stays."""

    name: _Name | UnsetType = UNSET
    value: Any | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET


class AnyOfNames(Struct):
    """Those with one of these names."""

    any_: list[str] | None = None


class VariableFilter(Struct, forbid_unknown_fields=True):
    """Which variables."""

    name: AnyOfNames | None = None


class VariablesFilter(Paged):
    """Which variables; they come by name."""

    variables: VariableFilter | None = None


class ArtifactCreate(Struct):
    """Something to look at. Of those with one key the newest counts."""

    key: _Name | None = None
    type: str | None = None
    description: str | None = None
    data: Any = None
    metadata_: dict[str, str] | None = None
    flow_run_id: Id | None = None
    task_run_id: Id | None = None


class ArtifactUpdate(Struct):
    """What is new about an artifact."""

    data: Any | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    metadata_: dict[str, str] | UnsetType | None = UNSET


class Values:
    """The use cases, on one core."""

    def __init__(self, core: Core) -> None:
        self._keeping = core.keeping
        self._reader = core.store.kept

    # Variables -----------------------------------------------------------------------------------------------

    async def create_variable(self, body: VariableCreate) -> _Object:
        """Keep a variable."""
        return shown(await self._keeping.add(_VARIABLE, body.name, msgspec.structs.asdict(body)))

    async def variable(self, id: str) -> _Object:
        """Return a variable."""
        return shown(await self._keeping.get(_VARIABLE, id))

    async def variable_by_name(self, name: str) -> _Object:
        """Return a variable."""
        return shown(await self._keeping.named(_VARIABLE, name))

    async def variables(self, body: VariablesFilter) -> list[_Object]:
        """Return variables."""
        wanted = None if body.variables is None or body.variables.name is None else body.variables.name.any_
        found = await self._reader.list(_VARIABLE, body.size, body.offset or 0, names=wanted)
        return [shown(kept) for kept in found]

    async def update_variable(self, id: str, body: VariableUpdate) -> None:
        """Give a variable another value."""
        known = await self._keeping.get(_VARIABLE, id)
        if body.name not in (UNSET, known.name):
            raise Conflict("A variable keeps its name: create another one.")
        await self._keeping.change(_VARIABLE, id, _set(body))

    async def update_variable_by_name(self, name: str, body: VariableUpdate) -> None:
        """Give a variable another value."""
        await self.update_variable((await self._keeping.named(_VARIABLE, name)).id, body)

    async def delete_variable(self, id: str) -> None:
        """Keep a variable no more."""
        await self._keeping.drop(_VARIABLE, id)

    async def delete_variable_by_name(self, name: str) -> None:
        """Keep a variable no more."""
        await self.delete_variable((await self._keeping.named(_VARIABLE, name)).id)

    # Artifacts -----------------------------------------------------------------------------------------------

    async def create_artifact(self, body: ArtifactCreate) -> _Object:
        """Keep an artifact."""
        return shown(await self._keeping.add(_ARTIFACT, body.key or "", msgspec.structs.asdict(body)))

    async def artifact(self, id: str) -> _Object:
        """Return an artifact."""
        return shown(await self._keeping.get(_ARTIFACT, id))

    async def latest_artifact(self, key: str) -> _Object:
        """Return the newest artifact of a key."""
        return shown(await self._keeping.named(_ARTIFACT, key))

    async def update_artifact(self, id: str, body: ArtifactUpdate) -> None:
        """Keep something else in an artifact."""
        await self._keeping.change(_ARTIFACT, id, _set(body))

    async def delete_artifact(self, id: str) -> None:
        """Keep an artifact no more."""
        await self._keeping.drop(_ARTIFACT, id)


def _set(body: Struct) -> _Object:
    """Return the fields that were sent."""
    return {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}


def routes(core: Core) -> list[Route]:
    """Return the routes."""
    values = Values(core)
    variable, named = "/api/variables/{id:uuid}", "/api/variables/name/{name}"
    artifact = "/api/artifacts/{id:uuid}"

    def route(method: str, path: str, handler: Handler, summary: str, status: int = 200, **more: Any) -> Route:
        more = {"answers": {status: None if status == 204 else _Object}, **more}
        gone = {404: "There is no such thing"}
        return Route(method=method, path=path, handler=handler, summary=summary, tag=TAG, refusals=gone, **more)

    filtered: _Object = {"body": VariablesFilter, "answers": {200: list[_Object]}}
    return [
        route("POST", "/api/variables/", values.create_variable, "Keep a variable", 201, body=VariableCreate),
        route("POST", "/api/variables/filter", values.variables, "List variables", **filtered),
        route("GET", variable, values.variable, "Read a variable"),
        route("PATCH", variable, values.update_variable, "Change a variable", 204, body=VariableUpdate),
        route("DELETE", variable, values.delete_variable, "Delete a variable", 204),
        route("GET", named, values.variable_by_name, "Read a variable by its name"),
        route("PATCH", named, values.update_variable_by_name, "Change it by its name", 204, body=VariableUpdate),
        route("DELETE", named, values.delete_variable_by_name, "Delete it by its name", 204),
        route("POST", "/api/artifacts/", values.create_artifact, "Keep an artifact", 201, body=ArtifactCreate),
        route("GET", artifact, values.artifact, "Read an artifact"),
        route("PATCH", artifact, values.update_artifact, "Change an artifact", 204, body=ArtifactUpdate),
        route("DELETE", artifact, values.delete_artifact, "Delete an artifact", 204),
        route("GET", "/api/artifacts/{key}/latest", values.latest_artifact, "Read the newest of a key"),
    ]
