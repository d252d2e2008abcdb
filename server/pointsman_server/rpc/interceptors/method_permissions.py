"""The permission that each method needs, and in which scopes. A method that is not listed is denied to all callers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pointsman_server.domain.identity import Permission, Scope
from pointsman_server.rpc import CLIENT_STATUS, DISCOVERY, SERVICE, XDS


@dataclass(frozen=True, slots=True)
class Need:
    """A call needs ``permission`` in each of the ``scopes`` of its request; they are checked in their order."""

    permission: Permission
    scopes: Callable[[Any], Iterable[Scope]]


def _of_key(request: Any) -> Iterable[Scope]:
    key = request.key
    return (Scope(key.tenant, key.env),)


def _of_keys(request: Any) -> Iterable[Scope]:
    return _scopes(request.keys)


def _of_routes(request: Any) -> Iterable[Scope]:
    return _scopes(route.key for route in request.routes)


def _of_reads(request: Any) -> Iterable[Scope]:
    return _scopes(read.key for read in request.reads)


def _of_selections(request: Any) -> Iterable[Scope]:
    return _scopes(request.selections)


def _of_mutations(request: Any) -> Iterable[Scope]:
    return _scopes(map(mutated, request.mutations))


def _of_what_is_undone(_request: Any) -> Iterable[Scope]:
    # Only the history says what a revert changes: ``methods.change_sets`` checks that.
    return ()


def _of_names(_request: Any) -> Iterable[Scope]:
    # Each name that a request is about is checked by the handler: what may not be read is left out, or denied by name.
    return ()


_OF_FAMILY = frozenset({"set_traffic", "delete_traffic"})


def mutated(mutation: Any) -> Any:
    """Return what has the tenant, service and env of a mutation of a commit: a key, or a request for traffic."""
    field = mutation.WhichOneof("mutation") or "create"
    request = getattr(mutation, field)
    return request if field in _OF_FAMILY else request.key


def _scopes(keys: Iterable[Any]) -> Iterable[Scope]:
    # Each scope once: a batch has up to 1,000 keys, and rarely more than a few tenants.
    return [Scope(*parts) for parts in dict.fromkeys((key.tenant, key.env) for key in keys)]


def _of_filter(request: Any) -> Iterable[Scope]:
    return (Scope(request.tenant, request.env),)


METHODS: Mapping[str, Need] = {
    "Resolve": Need(Permission.READ, _of_key),
    "BatchResolve": Need(Permission.READ, _of_keys),
    "Get": Need(Permission.READ, _of_key),
    "List": Need(Permission.READ, _of_filter),
    "Watch": Need(Permission.READ, _of_filter),
    "ReportProgress": Need(Permission.READ, _of_filter),
    "GetPropagation": Need(Permission.READ, _of_filter),
    "GetUsage": Need(Permission.READ, _of_key),
    "ReportUsage": Need(Permission.READ, _of_reads),
    "Select": Need(Permission.READ, _of_filter),
    "BatchSelect": Need(Permission.READ, _of_selections),
    "Explain": Need(Permission.READ, _of_filter),
    "GetTraffic": Need(Permission.READ, _of_filter),
    "ListTraffic": Need(Permission.READ, _of_filter),
    "SetTraffic": Need(Permission.WRITE, _of_filter),
    "DeleteTraffic": Need(Permission.WRITE, _of_filter),
    "Commit": Need(Permission.WRITE, _of_mutations),
    "Revert": Need(Permission.WRITE, _of_what_is_undone),
    "Create": Need(Permission.WRITE, _of_key),
    "Update": Need(Permission.WRITE, _of_key),
    "Activate": Need(Permission.WRITE, _of_key),
    "Deactivate": Need(Permission.WRITE, _of_key),
    "Delete": Need(Permission.WRITE, _of_key),
    "Import": Need(Permission.WRITE, _of_routes),
    "ListChanges": Need(Permission.HISTORY, _of_filter),
}

_READ_BY_NAME = Need(Permission.READ, _of_names)

# By service and method.
NEEDS: Mapping[str, Mapping[str, Need]] = {
    SERVICE: METHODS,
    XDS: dict.fromkeys(("ListXdsClients", "ExplainXds"), _READ_BY_NAME),
    DISCOVERY: {"StreamAggregatedResources": _READ_BY_NAME, "DeltaAggregatedResources": _READ_BY_NAME},
    CLIENT_STATUS: dict.fromkeys(("FetchClientStatus", "StreamClientStatus"), _READ_BY_NAME),
}
