"""Which keys a mutation wrote, for the near-caches of the client: they must not show what was before it."""

from collections.abc import Iterator
from typing import Any

from pointsman.change_sets import ChangeSetResult
from pointsman.keys import RouteKey
from pointsman.rpc.convert import key_of
from pointsman.v1 import route_service_pb2 as pb


def written_keys(request: Any, result: object) -> Iterator[tuple[list[RouteKey], bool]]:
    """Yield keys, and whether the other versions of their tenant, service and env were written as well.

    A key without a version stands for the traffic. Of a revert, the keys of the changes that the response has.
    """
    if isinstance(request, pb.RevertRequest):
        if isinstance(result, ChangeSetResult):
            yield [change.key for change in result.changes], False
    elif isinstance(request, pb.CommitRequest):
        for mutation in request.mutations:
            yield from written_keys(getattr(mutation, mutation.WhichOneof("mutation") or "create"), None)
    else:
        each_request = getattr(request, "routes", [request])
        yield [_key(each) for each in each_request], getattr(request, "exclusive", False)


def names_all(request: object, result: object) -> bool:
    """Say whether ``written_keys`` yields all keys: not of a revert with more changes than fit into its response."""
    omitted = isinstance(result, ChangeSetResult) and result.omitted_change_count > 0
    return not (omitted and isinstance(request, pb.RevertRequest))


def _key(request: Any) -> RouteKey:
    if hasattr(request, "key"):
        return key_of(request.key)
    return RouteKey(request.tenant, request.service, request.env, "")
