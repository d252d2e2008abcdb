"""What there is of a tenant, service and env: its versions, and how calls are divided between them now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pointsman.client import Client
from pointsman.errors import TrafficNotFound
from pointsman.keys import FamilyKey
from pointsman.results import Route, Traffic
from pointsman.selection import POINTS

LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class FamilyState:
    """The versions by name, and the traffic; None if it is not set."""

    key: FamilyKey
    traffic: Traffic | None
    routes: Mapping[str, Route]

    @property
    def active(self) -> list[str]:
        """The active versions, in order."""
        return sorted(version for version, route in self.routes.items() if route.active)

    @property
    def weights(self) -> dict[str, int]:
        """The weights now: without traffic, the only active version has all."""
        if self.traffic:
            return self.traffic.weights
        return dict.fromkeys(self.active, POINTS) if len(self.active) == 1 else {}

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The fallbacks now."""
        return self.traffic.fallbacks if self.traffic else ()

    @property
    def revision(self) -> int:
        """The revision of the traffic; 0 if it is not set."""
        return self.traffic.revision if self.traffic else 0


def family_of(client: Client, key: FamilyKey) -> FamilyState:
    """Return what there is, from the store."""
    try:
        traffic = client.get_traffic(key)
    except TrafficNotFound:
        traffic = None
    found = client.list(tenant=key.tenant, service=key.service, env=key.env, page_size=LARGEST_PAGE)
    return FamilyState(key, traffic, {route.key.version: route for route in found})


def inactive_warnings(family: FamilyState, weights: Mapping[str, int], activated: Sequence[str] = ()) -> list[str]:
    """Say which of the versions with a weight get no calls, as they are not active."""
    active = {*family.active, *activated}
    away = [version for version, points in weights.items() if points and version not in active]
    if not away:
        return []
    names, are = ", ".join(away), "is" if len(away) == 1 else "are"
    if any(points and version in active for version, points in weights.items()):
        effect = "the others get those calls"
    else:
        effect = "no version with a weight is: calls go to the first active fallback, or fail"
    return [f"warning: {names} {are} not active: {effect}, until you run pointsman activate {family.key}/{away[0]}"]
