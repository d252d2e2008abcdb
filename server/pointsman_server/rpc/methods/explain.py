"""Serves Explain."""

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.auth.permissions import Permissions
from pointsman_server.ports.cache import RouteCache
from pointsman_server.ports.store import RouteStore
from pointsman_server.reads.local_cache import LocalCache


class ExplainMethod:
    """Serves Explain."""

    def __init__(
        self, store: RouteStore, cache: RouteCache, local: LocalCache, permissions: Permissions | None
    ) -> None:
        self._store = store
        self._cache = cache
        self._local = local
        self._permissions = permissions

    async def explain(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """Serve the method."""
        raise NotImplementedError
