"""Serves Explain: what Resolve or Select would answer now, and why."""

import asyncio
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.auth.api_key_verifier import ApiKeyVerifier
from pointsman_server.auth.permissions import Permissions
from pointsman_server.domain.codec import change_to_message, key_to_bytes, route_to_message, traffic_to_message
from pointsman_server.domain.errors import PointsmanError, RetryLater
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Change, RouteKey, Snapshot
from pointsman_server.ports.cache import CacheUnavailable, Held, RouteCache
from pointsman_server.ports.store import ChangeQuery, RouteStore
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import snapshot_of
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.selection import select
from pointsman_server.rpc.call import current_call
from pointsman_server.rpc.methods.explained_permission import ExplainedPermission
from pointsman_server.rpc.selections import choice_message
from pointsman_server.rpc.statuses import status_of

Layer = pb.ExplainResponse.Layer

# Without addresses: callers need not know where Redis is. The log of the server has them.
UNREACHABLE = "Redis cannot be asked now"
WRITTEN = "a write of it is under way: until that ends it is not answered from here"
LOADED = "it is being loaded"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store holds of a key, and of its family, at one moment; and the last change up to then."""

    of_key: Snapshot
    family: Snapshot
    last_change: Change | None


class ExplainMethod:
    """Reads every layer past the others, and changes nothing in any of them: no lease, no load, no count of a read."""

    def __init__(
        self,
        store: RouteStore,
        cache: RouteCache,
        local: LocalCache,
        permissions: Permissions | None,
        api_keys: ApiKeyVerifier | None = None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._local = local
        self._permission = ExplainedPermission(permissions, api_keys)

    async def explain(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """Serve the method. Without the store the answer is its status, and the caches are told nevertheless."""
        key = RouteKey(request.tenant, request.service, request.env, request.version)
        caller = current_call().identity
        permission = self._permission.explain(caller, request.subject, Scope(key.tenant, key.env))
        response = pb.ExplainResponse(permission=permission)
        local = self._local_layer(key)
        shared, stored = await asyncio.gather(self._shared_layer(key), self._read(key))
        if isinstance(stored, PointsmanError):
            response.status.CopyFrom(status_of(stored))
            from_store = Layer(source=pb.Provenance.SOURCE_POSTGRES, problem=stored.message)
        else:
            _fill(response, stored, request.sticky_key)
            from_store = _layer(Source.POSTGRES, stored.of_key, 0.0)
        response.layers.extend([local, shared, from_store])
        return response

    def _local_layer(self, key: RouteKey) -> Layer:
        # What the feed follows is true as of all that it has brought.
        hit = self._local.find(key_to_bytes(key), self._local.fed)
        return _layer(Source.LOCAL, snapshot_of(key, hit) if hit else None, hit[3] if hit else None)

    async def _shared_layer(self, key: RouteKey) -> Layer:
        try:
            held = await self._cache.peek(key)
        except CacheUnavailable:
            return Layer(source=pb.Provenance.SOURCE_REDIS, problem=UNREACHABLE)
        layer = _layer(Source.REDIS, held.snapshot, held.age)
        layer.problem = _problem(held)
        return layer

    async def _read(self, key: RouteKey) -> Stored | PointsmanError:
        try:
            of_key, *of_family = await self._store.load([key, key.family_key] if key.version else [key])
            changes = await self._store.list_changes(
                ChangeQuery(*key, before_revision=of_key.as_of + 1, newest_first=True, limit=1)
            )
        except RetryLater as error:
            return error
        return Stored(of_key, of_family[0] if of_family else of_key, changes[0] if changes else None)


def _fill(response: pb.ExplainResponse, stored: Stored, sticky_key: str) -> None:
    """Say what the store knows, and what follows from it."""
    of_key, traffic = stored.of_key, stored.family.family.traffic
    try:
        if of_key.key.version:
            route = Answer(of_key, Source.POSTGRES).route()
        else:
            route, choice = select(of_key, sticky_key)
            response.choice.CopyFrom(choice_message(choice, traffic.revision if traffic else 0))
        response.route.CopyFrom(route_to_message(route))
    except PointsmanError as error:
        response.status.CopyFrom(status_of(error))
    response.as_of_revision, response.epoch = of_key.as_of, of_key.epoch
    if traffic:
        response.traffic.CopyFrom(traffic_to_message(traffic))
    if stored.last_change:
        response.last_change.CopyFrom(change_to_message(stored.last_change))


def _layer(source: Source, snapshot: Snapshot | None, age: float | None) -> Layer:
    layer = Layer(source=pb.Provenance.Source.Value(f"SOURCE_{source}"))
    if snapshot:
        layer.held, layer.as_of_revision = True, snapshot.as_of
        layer.revision = snapshot.value.revision if snapshot.value else 0
        if age is not None:
            layer.age.CopyFrom(Duration(seconds=int(age), nanos=int(age % 1 * 1e9)))
    return layer


def _problem(held: Held) -> str:
    if held.marked:
        return WRITTEN
    return LOADED if held.leased and not held.snapshot else ""
