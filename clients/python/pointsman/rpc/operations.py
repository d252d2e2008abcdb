"""The methods of the service: what each is called, how its answer is read, and which revisions it tells."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from pointsman.errors import AmbiguousVersion, NotFound, PointsmanError, Unimplemented
from pointsman.memory import Sighting
from pointsman.results import Activation, BatchResult, Change, ImportResult, Resolution, Route
from pointsman.rpc.convert import (
    batch_result_of,
    change_of,
    import_result_of,
    resolution_of,
    route_of,
)
from pointsman.v1 import propagation_pb2, usage_pb2
from pointsman.v1 import route_service_pb2 as pb

if TYPE_CHECKING:
    from pointsman.watchers import Propagation, Usage

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Request, Response, Result]):
    """One method: ``read`` makes the result from the response, ``written`` is the revision of a mutation.

    ``shown`` says what a result tells of the keys that were asked for; with it, NOT_FOUND tells something too.
    """

    name: str
    read: Callable[[Response], Result]
    written: Callable[[Response], int] | None = None
    shown: Callable[[Result], Iterable[Sighting]] | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list; ``next_page_token`` is empty on the last one."""

    items: tuple[Item, ...]
    next_page_token: str


def _route(response: pb.CreateResponse | pb.UpdateResponse | pb.DeactivateResponse | pb.GetResponse) -> Route:
    return route_of(response.route)


def _route_revision(response: pb.CreateResponse | pb.UpdateResponse | pb.DeactivateResponse) -> int:
    return response.route.revision


def _revision(response: pb.ActivateResponse | pb.DeleteResponse | pb.ImportResponse) -> int:
    return response.revision


def _results(response: pb.BatchResolveResponse) -> tuple[BatchResult, ...]:
    return tuple(map(batch_result_of, response.results))


def _activation(response: pb.ActivateResponse) -> Activation:
    return Activation(route_of(response.route), response.revision)


def _routes(response: pb.ListResponse) -> Page[Route]:
    return Page(tuple(map(route_of, response.routes)), response.next_page_token)


def _changes(response: pb.ListChangesResponse) -> Page[Change]:
    return Page(tuple(map(change_of, response.changes)), response.next_page_token)


def _route_as_of(response: pb.GetResponse) -> Route:
    if not response.as_of_revision:
        raise _ignored("as_of")
    return route_of(response.route)


def _routes_as_of(response: pb.ListResponse) -> Page[Route]:
    if response.routes and not response.as_of_revision:
        raise _ignored("as_of")
    return _routes(response)


def _ignored(field: str) -> Unimplemented:
    """Return the error of a server that ignores a field which it does not know, and so answers something else."""
    return Unimplemented(f"the server does not know {field}: it is older than this client")


def _propagation(response: propagation_pb2.GetPropagationResponse) -> "Propagation":
    from pointsman.rpc.watchers import propagation_of

    return propagation_of(response)


def _usage(response: usage_pb2.GetUsageResponse) -> "Usage":
    from pointsman.rpc.watchers import usage_of

    return usage_of(response)


def absence(error: PointsmanError | None) -> list[Sighting]:
    """Return what an error tells of a key, as of a revision: that it was absent, not live, or ambiguous.

    Mostly nothing.
    """
    if not isinstance(error, NotFound | AmbiguousVersion):
        return []
    key, revision = error.metadata.get("key"), error.metadata.get("revision", "")
    if not (key and revision.isascii() and revision.isdigit()):
        return []
    return [Sighting(key, int(revision), int(revision), error.metadata.get("epoch", ""))]


def _resolved(resolution: Resolution) -> list[Sighting]:
    route = resolution.route
    return [Sighting(str(route.key), route.revision, resolution.as_of_revision, resolution.epoch)]


def all_resolved(results: Iterable[BatchResult]) -> list[Sighting]:
    """Return what the results of a batch tell of their keys."""
    return [
        sighting
        for result in results
        for sighting in (_resolved(result.resolution) if result.resolution else absence(result.error))
    ]


def _got(route: Route) -> list[Sighting]:
    return [Sighting(str(route.key), route.revision, route.revision, "")]


RESOLVE: Operation[pb.ResolveRequest, pb.ResolveResponse, Resolution] = Operation(
    "Resolve", resolution_of, shown=_resolved
)
BATCH_RESOLVE: Operation[pb.BatchResolveRequest, pb.BatchResolveResponse, tuple[BatchResult, ...]] = Operation(
    "BatchResolve", _results, shown=all_resolved
)
CREATE: Operation[pb.CreateRequest, pb.CreateResponse, Route] = Operation("Create", _route, _route_revision)
UPDATE: Operation[pb.UpdateRequest, pb.UpdateResponse, Route] = Operation("Update", _route, _route_revision)
ACTIVATE: Operation[pb.ActivateRequest, pb.ActivateResponse, Activation] = Operation("Activate", _activation, _revision)
DEACTIVATE: Operation[pb.DeactivateRequest, pb.DeactivateResponse, Route] = Operation(
    "Deactivate", _route, _route_revision
)
IMPORT: Operation[pb.ImportRequest, pb.ImportResponse, ImportResult] = Operation("Import", import_result_of, _revision)
DELETE: Operation[pb.DeleteRequest, pb.DeleteResponse, int] = Operation("Delete", _revision, _revision)
GET: Operation[pb.GetRequest, pb.GetResponse, Route] = Operation("Get", _route, shown=_got)
LIST: Operation[pb.ListRequest, pb.ListResponse, Page[Route]] = Operation("List", _routes)
LIST_CHANGES: Operation[pb.ListChangesRequest, pb.ListChangesResponse, Page[Change]] = Operation(
    "ListChanges", _changes
)


def get(moment: object) -> Operation[pb.GetRequest, pb.GetResponse, Route]:
    """Return Get as of ``moment``; None: as it is now."""
    return GET if moment is None else Operation("Get", _route_as_of, shown=_got)


def list_routes(moment: object) -> Operation[pb.ListRequest, pb.ListResponse, Page[Route]]:
    """Return List, as ``get`` does."""
    return LIST if moment is None else Operation("List", _routes_as_of)


def list_changes(
    after: datetime | None, before: datetime | None
) -> Operation[pb.ListChangesRequest, pb.ListChangesResponse, Page[Change]]:
    """Return ListChanges of the changes after a time, up to another one; None: no limit."""
    if after is None and before is None:
        return LIST_CHANGES

    def read(response: pb.ListChangesResponse) -> Page[Change]:
        page = _changes(response)
        for change in page.items:
            if (after and change.occur_time <= after) or (before and change.occur_time > before):
                raise _ignored("after_time and before_time")
        return page

    return Operation("ListChanges", read)


GET_PROPAGATION: "Operation[propagation_pb2.GetPropagationRequest, propagation_pb2.GetPropagationResponse, Propagation]"
GET_PROPAGATION = Operation("GetPropagation", _propagation)
GET_USAGE: "Operation[usage_pb2.GetUsageRequest, usage_pb2.GetUsageResponse, Usage]" = Operation("GetUsage", _usage)

READS = (
    RESOLVE.name,
    BATCH_RESOLVE.name,
    GET.name,
    LIST.name,
    LIST_CHANGES.name,
    "Select",
    "BatchSelect",
    "Explain",
    "GetTraffic",
    "ListTraffic",
)
WATCHERS = ("ReportProgress", GET_PROPAGATION.name, GET_USAGE.name, "ReportUsage")
MUTATIONS = (
    CREATE.name,
    UPDATE.name,
    ACTIVATE.name,
    DEACTIVATE.name,
    DELETE.name,
    IMPORT.name,
    "Commit",
    "Revert",
    "SetTraffic",
    "DeleteTraffic",
)
