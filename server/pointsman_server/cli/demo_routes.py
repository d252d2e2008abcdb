"""A realistic table of routes: for ``dev --demo``, for tests and for benchmarks."""

import asyncio
from collections.abc import Iterator
from itertools import islice, product

from pointsman_server.domain.errors import RouteExists
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.store import Intent
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create

TENANTS = ("team-a", "team-b", "retail", "logistics", "identity", "data-platform", "mobile", "risk")
SERVICES = (
    "payments",
    "orders",
    "users",
    "search",
    "inventory",
    "ledger",
    "notifications",
    "pricing",
    "sessions",
    "reports",
)
ENVS = ("prod", "staging", "dev")
VERSIONS = ("v2", "v1", "v3-canary")
ACTIVE = {"v1": False, "v2": True, "v3-canary": True}


def routes(count: int) -> Iterator[Create]:
    """Make ``count`` routes, always the same ones; the first is ``team-a/payments/prod/v2``."""
    tenants = (name if round_ == 0 else f"{name}-{round_}" for round_ in range(count) for name in TENANTS)
    combinations = ((tenant, *rest) for tenant in tenants for rest in product(SERVICES, ENVS, VERSIONS))
    for tenant, service, env, version in islice(combinations, count):
        url = f"https://{service}-{version}.{tenant}.{env}.internal:8443"
        labels = {"owner": tenant, "tier": "gold" if env == "prod" else "bronze"}
        yield Create(RouteKey(tenant, service, env, version), url, labels, ACTIVE[version])


async def load(committer: GroupCommitter, count: int, *, at_once: int = 8) -> int:
    """Create the routes that are not there yet; returns how many that were."""
    bound = asyncio.Semaphore(at_once)
    intent = Intent(actor="demo", reason="the demo's table of routes")

    async def create(route: Create) -> bool:
        async with bound:
            try:
                await committer.create(route, intent)
            except RouteExists:
                return False
            return True

    return sum(await asyncio.gather(*(create(route) for route in routes(count))))
