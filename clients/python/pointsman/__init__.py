"""The Python client of Pointsman: which URL is live for ``tenant / service / env / version``.

``Client`` is for threads, ``AsyncClient`` for asyncio; everything else here is what they take, return and raise.
Names load on first use, so that ``import pointsman.v1`` alone, as the server does, imports no client and no gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pointsman import aio as aio
    from pointsman import xds as xds
    from pointsman.aio import AsyncClient
    from pointsman.change_sets import (
        Activate,
        ChangeSetResult,
        Create,
        Deactivate,
        Delete,
        DeleteTraffic,
        Difference,
        Mutation,
        MutationResult,
        SetTraffic,
        Update,
    )
    from pointsman.channels.channel import channel
    from pointsman.chunks import ImportedRoute
    from pointsman.client import Client
    from pointsman.errors import (
        AmbiguousVersion,
        ChangedSince,
        Conflict,
        DeadlineExceeded,
        EpochChanged,
        FailedPrecondition,
        FieldViolation,
        Internal,
        InvalidArgument,
        LastRead,
        NearCacheStale,
        NoActiveVersion,
        NotFound,
        PermissionDenied,
        PointsmanError,
        Refusal,
        RequestIdReused,
        ResourceExhausted,
        RevisionCompacted,
        RevisionInFuture,
        RevisionMismatch,
        RevisionNotReached,
        RouteExists,
        RouteInactive,
        RouteInTraffic,
        RouteInUse,
        RouteNotFound,
        TargetNotFound,
        TrafficNotFound,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        UsageNotCounted,
        UsageUnavailable,
    )
    from pointsman.keys import FamilyKey, RouteKey
    from pointsman.near_cache.async_near_cache import AsyncNearCache
    from pointsman.near_cache.near_cache import NearCache
    from pointsman.near_cache.table.entries import CachedResolution
    from pointsman.near_cache.table.selections import CachedSelection
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
        Target,
        Traffic,
    )
    from pointsman.selection import Choice, Rule
    from pointsman.traffic import (
        Explanation,
        Layer,
        PermissionRule,
        PermissionVerdict,
        Selection,
        SelectionResult,
    )
    from pointsman.watchers import Propagation, Reader, Usage, WatcherProgress

__all__ = [
    "Activate",
    "Activation",
    "AmbiguousVersion",
    "AsyncClient",
    "AsyncNearCache",
    "BatchResult",
    "CachedResolution",
    "CachedSelection",
    "Change",
    "ChangeKind",
    "ChangeSetResult",
    "ChangedSince",
    "Choice",
    "Client",
    "Conflict",
    "Consistency",
    "Create",
    "Deactivate",
    "DeadlineExceeded",
    "Delete",
    "DeleteTraffic",
    "Difference",
    "EpochChanged",
    "Existing",
    "Explanation",
    "FailedPrecondition",
    "FamilyKey",
    "FieldViolation",
    "ImportResult",
    "ImportedRoute",
    "Internal",
    "InvalidArgument",
    "LastRead",
    "Layer",
    "Mutation",
    "MutationResult",
    "NearCache",
    "NearCacheStale",
    "NoActiveVersion",
    "NotFound",
    "PermissionDenied",
    "PermissionRule",
    "PermissionVerdict",
    "PointsmanError",
    "Propagation",
    "Reader",
    "Refusal",
    "RequestIdReused",
    "Resolution",
    "ResourceExhausted",
    "RevisionCompacted",
    "RevisionInFuture",
    "RevisionMismatch",
    "RevisionNotReached",
    "Route",
    "RouteExists",
    "RouteInTraffic",
    "RouteInUse",
    "RouteInactive",
    "RouteKey",
    "RouteNotFound",
    "Rule",
    "Selection",
    "SelectionResult",
    "SetTraffic",
    "Source",
    "Target",
    "TargetNotFound",
    "Traffic",
    "TrafficNotFound",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Update",
    "Usage",
    "UsageNotCounted",
    "UsageUnavailable",
    "WatcherProgress",
    "channel",
]

_MODULES = {"aio", "xds"}
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
    "Target",
    "Traffic",
}
_CHANGE_SETS = {
    "Activate",
    "ChangeSetResult",
    "Create",
    "Deactivate",
    "Delete",
    "DeleteTraffic",
    "Difference",
    "Mutation",
    "MutationResult",
    "SetTraffic",
    "Update",
}
_TRAFFIC = {
    "Explanation",
    "Layer",
    "PermissionRule",
    "PermissionVerdict",
    "Selection",
    "SelectionResult",
}
_HOMES = {
    "AsyncClient": "pointsman.aio",
    "AsyncNearCache": "pointsman.near_cache.async_near_cache",
    "CachedResolution": "pointsman.near_cache.table.entries",
    "CachedSelection": "pointsman.near_cache.table.selections",
    "NearCache": "pointsman.near_cache.near_cache",
    "Client": "pointsman.client",
    "channel": "pointsman.channels.channel",
    "ImportedRoute": "pointsman.chunks",
    **dict.fromkeys(("FamilyKey", "RouteKey"), "pointsman.keys"),
    **dict.fromkeys(("Choice", "Rule"), "pointsman.selection"),
    **dict.fromkeys(_CHANGE_SETS, "pointsman.change_sets"),
    **dict.fromkeys(_TRAFFIC, "pointsman.traffic"),
    **dict.fromkeys(_RESULTS, "pointsman.results"),
    **dict.fromkeys(("Propagation", "Reader", "Usage", "WatcherProgress"), "pointsman.watchers"),
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "pointsman.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
