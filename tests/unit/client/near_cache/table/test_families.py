"""Traffic, and which versions there are: known from the first select on, and kept current."""

from pointsman.near_cache.table.entries import DELETED, CachedResolution, InactiveRoute
from pointsman.near_cache.table.families import Families, family_of, is_family
from pointsman.near_cache.table.selections import Entry
from pointsman.near_cache.table.view import View
from tests.support.watch_events import Division, traffic

FAMILY, OTHER = "team-a/payments/prod", "team-a/payments/test"
VIEW, ELSEWHERE = View(), View()
TO_V1 = Division((("v1", 10_000),), ("v2",))


def table(*keys: str) -> dict[str, Entry]:
    return {key: CachedResolution(VIEW, key, f"https://{key[-2:]}.internal", 3, b"") for key in keys}


def url_of(families: Families, routes: dict[str, Entry], news: dict[str, Entry] | None = None) -> str | None:
    found = families.entry(VIEW, FAMILY, routes, news or {}).choose(b"user-1")
    return found.url if found else None


def test_names() -> None:
    assert family_of(f"{FAMILY}/v1") == FAMILY
    assert (is_family(FAMILY), is_family(f"{FAMILY}/v1")) == (True, False)


def test_the_versions_of_a_family_are_found() -> None:
    routes = table(f"{FAMILY}/v1", f"{OTHER}/v1", f"{OTHER}/v2")
    assert url_of(Families(), routes) == "https://v1.internal"


def test_nothing_is_known_of_versions_before_the_first_select() -> None:
    families, routes = Families(), table(f"{FAMILY}/v1")
    families.set_route(f"{FAMILY}/v1", exists=True)
    families.replace(VIEW, [], routes)
    assert families._keys is None
    assert url_of(families, routes)
    assert families._keys == {FAMILY: {f"{FAMILY}/v1"}}


def test_versions_come_and_go() -> None:
    families, routes = Families(), table(f"{FAMILY}/v1")
    families.set_traffic(VIEW, FAMILY, traffic(FAMILY, 5, TO_V1))
    assert url_of(families, routes) == "https://v1.internal"
    families.set_route(f"{FAMILY}/v2", exists=True)
    families.set_route(f"{FAMILY}/v1", exists=False)
    news = table(f"{FAMILY}/v2") | {f"{FAMILY}/v1": DELETED}
    assert url_of(families, routes, news) == "https://v2.internal"
    families.set_route(f"{FAMILY}/v2", exists=False)
    families.set_route(f"{FAMILY}/v2", exists=False)
    assert url_of(families, {}) is None
    assert not families._keys


def test_what_is_new_counts_before_what_is_there() -> None:
    families, routes = Families(), table(f"{FAMILY}/v1", f"{FAMILY}/v2")
    families.set_traffic(VIEW, FAMILY, traffic(FAMILY, 5, TO_V1))
    news: dict[str, Entry] = {f"{FAMILY}/v1": InactiveRoute(VIEW, f"{FAMILY}/v1", "", 9, b"")}
    assert url_of(families, routes, news) == "https://v2.internal"


def test_a_snapshot_replaces_the_traffic_of_its_view_alone() -> None:
    families, routes = Families(), table(f"{FAMILY}/v1", f"{FAMILY}/v2")
    assert url_of(families, routes) is None
    families.set_traffic(ELSEWHERE, "team-b/payments/prod", traffic("team-b/payments/prod", 5, TO_V1))
    families.replace(VIEW, [traffic(FAMILY, 6, TO_V1)], routes)
    assert url_of(families, routes) == "https://v1.internal"
    families.replace(VIEW, [], routes)
    assert [each.owner for each in families.stored()] == [ELSEWHERE]
    families.drop(ELSEWHERE)
    assert families.stored() == []
    families.set_traffic(VIEW, FAMILY, traffic(FAMILY, 7, TO_V1))
    families.set_traffic(VIEW, FAMILY, None)
    families.set_traffic(VIEW, FAMILY, None)
    assert families.stored() == []
