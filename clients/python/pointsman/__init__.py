"""The Python client of Pointsman: which URL is live for ``tenant / service / env / version``.

``Client`` is for threads, ``AsyncClient`` for asyncio; everything else here is what they take, return and raise.
Names load on first use, so that ``import pointsman.v1`` alone, as the server does, imports no client and no gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointsman.aio import AsyncClient
    from pointsman.chunks import ImportedRoute
    from pointsman.client import Client
    from pointsman.errors import (
        Conflict,
        DeadlineExceeded,
        FieldViolation,
        Internal,
        InvalidArgument,
        NearCacheStale,
        NotFound,
        PermissionDenied,
        PointsmanError,
        RequestIdReused,
        ResourceExhausted,
        RevisionMismatch,
        RevisionNotReached,
        RouteExists,
        RouteInactive,
        RouteNotFound,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )
    from pointsman.keys import RouteKey
    from pointsman.near_cache.async_near_cache import AsyncNearCache
    from pointsman.near_cache.near_cache import NearCache
    from pointsman.near_cache.table.entries import CachedResolution
    from pointsman.results import (
        Activation,
        BatchResult,
        Change,
        ChangeKind,
        Consistency,
        Existing,
        ImportResult,
        Resolution,
        Route,
        Source,
    )
    from pointsman.watchers import Propagation, Reader, Usage, WatcherProgress

__all__ = [
    "Activation",
    "AsyncClient",
    "AsyncNearCache",
    "BatchResult",
    "CachedResolution",
    "Change",
    "ChangeKind",
    "Client",
    "Conflict",
    "Consistency",
    "DeadlineExceeded",
    "Existing",
    "FieldViolation",
    "ImportResult",
    "ImportedRoute",
    "Internal",
    "InvalidArgument",
    "NearCache",
    "NearCacheStale",
    "NotFound",
    "PermissionDenied",
    "PointsmanError",
    "Propagation",
    "Reader",
    "RequestIdReused",
    "Resolution",
    "ResourceExhausted",
    "RevisionMismatch",
    "RevisionNotReached",
    "Route",
    "RouteExists",
    "RouteInactive",
    "RouteKey",
    "RouteNotFound",
    "Source",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Usage",
    "WatcherProgress",
]

_RESULTS = {
    "Activation",
    "BatchResult",
    "Change",
    "ChangeKind",
    "Consistency",
    "Existing",
    "ImportResult",
    "Resolution",
    "Route",
    "Source",
}
_HOMES = {
    "AsyncClient": "pointsman.aio",
    "AsyncNearCache": "pointsman.near_cache.async_near_cache",
    "CachedResolution": "pointsman.near_cache.table.entries",
    "NearCache": "pointsman.near_cache.near_cache",
    "Client": "pointsman.client",
    "ImportedRoute": "pointsman.chunks",
    "RouteKey": "pointsman.keys",
    **dict.fromkeys(_RESULTS, "pointsman.results"),
    **dict.fromkeys(("Propagation", "Reader", "Usage", "WatcherProgress"), "pointsman.watchers"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "pointsman.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
