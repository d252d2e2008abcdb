"""The stages that hold callers to their rates (``limiting``): one for who calls, one for whose routes.

Methods of other services, such as health, are never held back.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pointsman_server.domain.errors import RateLimited
from pointsman_server.ports.quota import QuotaUnavailable, SharedQuota, Taking
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc import call as calls
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.stage import Handler, Method, Stage
from pointsman_server.runtime.rate_limiter import Limiter, Limits

READS = frozenset({"Resolve", "BatchResolve", "Get", "List", "ListChanges"})
# What calls for many routes cost; all others cost one. A request may be anything yet, even no message.
COSTS: Mapping[str, Callable[[Any], int]] = {
    "BatchResolve": lambda request: len(getattr(request, "keys", ())) or 1,
    "Import": lambda request: len(getattr(request, "routes", ())) or 1,
}


@dataclass(frozen=True, slots=True)
class Throttling:
    """The limits, and whom to tell of a refusal: ``limited`` gets the name of the limit.

    With ``shared``, writes also count against what all servers let pass together.
    """

    reads: Limits
    writes: Limits
    shared: SharedQuota | None
    limited: Callable[[str], None]

    def of(self, method: Method) -> Limits:
        """Return the limits of a method."""
        if method.service != SERVICE:
            return Limits()
        return self.reads if method.name in READS else self.writes


def throttle_callers(throttling: Throttling) -> Stage:
    """Refuse callers over their rate. The request may be anything yet, even no message."""

    def stage(method: Method, proceed: Handler) -> Handler:
        limiter = throttling.of(method).identity
        if limiter is None:
            return proceed
        take, cost_of = limiter.take, COSTS.get(method.name, _one)

        async def handle(request: Any, context: Context) -> Any:
            try:
                take(calls.current().actor, cost_of(request))
            except RateLimited as error:
                throttling.limited(error.metadata["limit"])
                raise
            return await proceed(request, context)

        return handle

    return stage


def throttle_tenants(throttling: Throttling) -> Stage:
    """Refuse calls to tenants over their rate, and ask for a share of what servers have together."""

    def stage(method: Method, proceed: Handler) -> Handler:
        limits = throttling.of(method)
        shared = throttling.shared if limits is throttling.writes else None
        if limits.tenant is None and shared is None:
            return proceed
        cost_of = COSTS.get(method.name, _one)

        async def handle(request: Any, context: Context) -> Any:
            costs = tenants(method, request)
            try:
                if limits.tenant and costs:
                    limits.tenant.take_all(costs)
                if shared:
                    await _take_shared(shared, limits, {calls.current().actor: cost_of(request)}, costs)
            except RateLimited as error:
                throttling.limited(error.metadata["limit"])
                raise
            return await proceed(request, context)

        return handle

    return stage


def tenants(method: Method, request: Any) -> Mapping[str, int]:
    """Say what a valid request costs each tenant. One that ranges over all tenants costs none of them."""
    if method.name == "BatchResolve":
        return Counter(key.tenant for key in request.keys)
    if method.name == "Import":
        return Counter(route.key.tenant for route in request.routes)
    tenant = request.tenant if method.name in ("List", "ListChanges") else request.key.tenant
    return {tenant: 1} if tenant else {}


def _one(_request: Any) -> int:
    return 1


async def _take_shared(
    shared: SharedQuota, limits: Limits, of_identity: Mapping[str, int], of_tenants: Mapping[str, int]
) -> None:
    takings = _takings(limits.identity, of_identity) + _takings(limits.tenant, of_tenants)
    try:
        await shared.take(takings)
    except QuotaUnavailable:
        # What this process counted by itself has let the call pass.
        return


def _takings(limiter: Limiter | None, costs: Mapping[str, int]) -> list[Taking]:
    if limiter is None:
        return []
    rate = limiter.rate
    return [Taking(limiter.name, subject, rate.debt(cost), rate.window) for subject, cost in costs.items()]
