"""Limits callers to their rates: one stage counts by identity, one by the tenants of the requests.

Each request of a stream counts as a call. Health is never limited.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pointsman_server.domain.access_errors import RateLimited
from pointsman_server.domain.identity import Permission
from pointsman_server.ports.quota import QuotaUnavailable, SharedQuota, Taking
from pointsman_server.rpc import HEALTH, SERVICE
from pointsman_server.rpc.call import Context, current_call
from pointsman_server.rpc.interceptors.method_permissions import METHODS, mutated
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage, check_requests
from pointsman_server.runtime.rate_limiter import Limiter, Limits

# What calls for many routes cost; all others cost one. The request is not validated yet: it may be no message at all.
COSTS: Mapping[str, Callable[[Any], int]] = {
    "BatchResolve": lambda request: len(getattr(request, "keys", ())) or 1,
    "BatchSelect": lambda request: len(getattr(request, "selections", ())) or 1,
    "Import": lambda request: len(getattr(request, "routes", ())) or 1,
    "Commit": lambda request: len(getattr(request, "mutations", ())) or 1,
    # An acknowledgement answers what the server sent.
    "StreamAggregatedResources": lambda request: 0 if getattr(request, "response_nonce", "") else 1,
}


@dataclass(frozen=True, slots=True)
class Throttling:
    """The limits of reads and of writes; ``limited`` is called with the name of the limit that refused a call.

    With ``shared``, writes also count against a quota that all servers share.
    """

    reads: Limits
    writes: Limits
    shared: SharedQuota | None
    limited: Callable[[str], None]

    def of(self, method: Method) -> Limits:
        """Return the limits of a method."""
        if method.service == HEALTH:
            return Limits()
        if method.service != SERVICE:
            return self.reads
        need = METHODS.get(method.name)
        return self.writes if need is None or need.permission is Permission.WRITE else self.reads


def throttle_callers(throttling: Throttling) -> Stage:
    """Refuse callers over their rate. The request is not validated yet: it may be no message at all."""

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        limiter = throttling.of(method).identity
        if limiter is None:
            return proceed
        take, cost_of = limiter.take, COSTS.get(method.name, _one)

        def check(request: Any, _context: Context) -> None:
            if cost := cost_of(request):
                with _told(throttling):
                    take(current_call().actor, cost)

        return check_requests(method, proceed, check)

    return stage


# Only the handler of this method knows what a call costs.
BY_HANDLER = "Revert"


def throttle_tenants(throttling: Throttling) -> Stage:
    """Refuse calls for tenants over their rate, and those beyond the shared quota."""

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        limits = throttling.of(method)
        costs = _Costs(throttling, limits, throttling.shared if limits is throttling.writes else None)
        if method.name == BY_HANDLER:

            def offer(_request: Any, _context: Context) -> None:
                _costs.set(costs)

            return check_requests(method, proceed, offer)
        if (limits.tenant is None or method.service != SERVICE) and costs.shared is None:
            return proceed
        cost_of = COSTS.get(method.name, _one)

        async def check(request: Any, _context: Context) -> None:
            await costs.take(cost_of(request), tenants(method, request))

        return check_requests(method, proceed, check)

    return stage


async def charge(costs: Mapping[str, int]) -> None:
    """Count what the current call, of the method ``BY_HANDLER``, costs each tenant; its caller, all of that together.

    Raises RateLimited. Nothing is counted where nothing is limited.
    """
    taking = _costs.get()
    if taking and costs:
        await taking.take_for_caller(costs)


@dataclass(frozen=True, slots=True)
class _Costs:
    """Takes what calls cost from the ``limits`` of this process, and from the ``shared`` ones."""

    throttling: Throttling
    limits: Limits
    shared: SharedQuota | None

    async def take(self, of_identity: int, of_tenants: Mapping[str, int]) -> None:
        with _told(self.throttling):
            if self.limits.tenant and of_tenants:
                self.limits.tenant.take_all(of_tenants)
            if self.shared:
                await _take_shared(self.shared, self.limits, {current_call().actor: of_identity}, of_tenants)

    async def take_for_caller(self, of_tenants: Mapping[str, int]) -> None:
        """Take for the caller too, in place of the one that ``throttle_callers`` took."""
        total, limiter, actor = sum(of_tenants.values()), self.limits.identity, current_call().actor
        if limiter:
            limiter.give_back(actor)
            with _told(self.throttling):
                limiter.take(actor, total)
        await self.take(total, of_tenants)


_costs: ContextVar[_Costs | None] = ContextVar("costs", default=None)


@contextmanager
def _told(throttling: Throttling) -> Iterator[None]:
    try:
        yield
    except RateLimited as error:
        throttling.limited(error.metadata["limit"])
        raise


def tenants(method: Method, request: Any) -> Mapping[str, int]:
    """Return what a valid request costs each tenant; one over all tenants costs none of them."""
    if method.name == "BatchResolve":
        return Counter(key.tenant for key in request.keys)
    if method.name == "BatchSelect":
        return Counter(selection.tenant for selection in request.selections)
    if method.name == "Commit":
        return Counter(mutated(mutation).tenant for mutation in request.mutations)
    if method.name == "Import":
        return Counter(route.key.tenant for route in request.routes)
    need = METHODS.get(method.name) if method.service == SERVICE else None
    return {scope.tenant: 1 for scope in need.scopes(request) if scope.tenant} if need else {}


def _one(_request: Any) -> int:
    return 1


async def _take_shared(
    shared: SharedQuota, limits: Limits, of_identity: Mapping[str, int], of_tenants: Mapping[str, int]
) -> None:
    takings = _takings(limits.identity, of_identity) + _takings(limits.tenant, of_tenants)
    try:
        await shared.take(takings)
    except QuotaUnavailable:
        # The limits of this process have admitted the call.
        return


def _takings(limiter: Limiter | None, costs: Mapping[str, int]) -> list[Taking]:
    if limiter is None:
        return []
    rate = limiter.rate
    return [Taking(limiter.name, subject, rate.debt(cost), rate.window) for subject, cost in costs.items()]
