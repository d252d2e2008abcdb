"""The table: equal to the store after any history, whichever way it was reached."""

import asyncio
import gc
import sys
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings

from pointsman_server.domain.routes import ChangeKind, Route, RouteKey
from pointsman_server.ports.store import Clock
from pointsman_server.xds import targets
from pointsman_server.xds.names import root_name
from pointsman_server.xds.table import Table
from pointsman_server.xds.targets import Slot, Target, Verdict
from tests.support.changes import BEGINNING, make_change, make_traffic_change
from tests.support.xds_history import HISTORIES, History, content

FAMILY = RouteKey("acme", "pay", "prod", "")


def route(version: str, *, active: bool = True, family: RouteKey = FAMILY) -> Route:
    key = family._replace(version=version)
    return Route(key, f"https://{version}.internal", active, {}, 1, BEGINNING, BEGINNING)


@given(HISTORIES)
@settings(max_examples=60, deadline=None)
def test_it_is_equal_to_the_store_after_any_history(history) -> None:  # type: ignore[no-untyped-def]
    written, table = History(), None
    table = written.table()
    for mutations in history:
        changes = asyncio.run(written.commit(mutations))
        before = content(table)
        changed = table.apply(changes) if changes else ()
        after = content(table)
        assert after == content(written.table())
        routes = {root_name(key) for key in written.store.routes}
        assert after[1] == len(routes)
        assert after[3] == routes | {root.partition("~")[2] for root in routes}
        # What leads elsewhere is among the roots that may have changed.
        roots = {root for root in after[2] if before[2][root] != after[2][root]}
        assert roots <= set(changed)
        assert before[3] ^ after[3] <= set(changed)


@given(HISTORIES)
@settings(max_examples=30, deadline=None)
def test_the_last_change_of_each_key_is_enough_in_any_order(history) -> None:  # type: ignore[no-untyped-def]
    written = History()
    table = written.table()
    asyncio.run(written.write(history))
    last = {change.key: change for changes in written.sets for change in changes}
    table.apply(reversed(last.values()))
    assert content(table) == content(written.table())


def test_what_is_there_can_be_asked() -> None:
    table = Table(Clock("e1", 7), [route("v1"), route("v2", active=False)])
    assert table.target("v1~prod~pay~acme") == Target(Verdict.LIVE, (Slot("v1", "https://v1.internal"),))
    assert table.target("v2~prod~pay~acme").verdict is Verdict.NOT_LIVE
    assert table.target("prod~pay~acme").slots == (Slot("v1", "https://v1.internal"),)
    assert (len(table), set(table.versions("prod~pay~acme")), list(table.families())) == (
        2,
        {"v1", "v2"},
        ["prod~pay~acme"],
    )
    assert table.has_family("prod~pay~acme")


def test_what_is_not_there_has_a_target_too() -> None:
    table = Table(Clock("e1", 7))
    assert table.target("v1~prod~pay~acme") == table.target("prod~pay~acme") == targets.UNKNOWN
    assert table.target("pay") == table.target("") == table.target("a~b~c~d~e") == targets.NOT_A_NAME
    assert list(table.roots()) == [] == list(table.versions("prod~pay~acme"))


def test_case_matters() -> None:
    table = Table(Clock("e1", 7), [route("v1"), route("v1", family=FAMILY._replace(tenant="Acme"))])
    table.apply([make_change(8)])
    assert table.target("v1~prod~pay~acme").slots[0].url == "https://pay.internal/8"
    assert table.target("v1~prod~pay~Acme").slots[0].url == "https://v1.internal"
    assert set(table.families()) == {"prod~pay~acme", "prod~pay~Acme"}


def test_traffic_without_routes_leads_nowhere() -> None:
    table = Table(Clock("e1", 7))
    assert list(table.apply([make_traffic_change(8)])) == ["prod~pay~acme"]
    assert table.target("prod~pay~acme") == targets.UNKNOWN
    table.apply([make_change(9)])
    assert table.target("prod~pay~acme").verdict is Verdict.LIVE
    assert table.clock == Clock("e1", 9)


def test_traffic_that_is_deleted_divides_no_calls() -> None:
    table = Table(Clock("e1", 7), [route("v1"), route("v2")])
    table.apply([make_traffic_change(8)])
    assert table.target("prod~pay~acme").slots == (Slot("v1", "https://v1.internal"),)
    for revision in (9, 10):
        table.apply([make_traffic_change(revision, kind=ChangeKind.TRAFFIC_DELETED)])
        assert table.target("prod~pay~acme").verdict is Verdict.NOT_LIVE


def test_a_family_grows_and_shrinks() -> None:
    table = Table(Clock("e1", 0))
    names = [f"v{number}" for number in range(5)]
    changes = [
        replace(make_change(number), key=FAMILY._replace(version=name), after=route(name))
        for number, name in enumerate(names, 1)
    ]
    for number, change in enumerate(changes, 1):
        table.apply([change])
        assert set(table.versions("prod~pay~acme")) == set(names[:number])
    for number, change in enumerate(changes, 1):
        table.apply([replace(change, after=None)])
        assert set(table.versions("prod~pay~acme")) == set(names[number:])
    assert (len(table), list(table.roots())) == (0, [])


def test_a_route_in_a_family_of_its_own_needs_no_dict() -> None:
    table = Table(Clock("e1", 7), [route("v1")])
    assert not isinstance(table._families["prod~pay~acme"], dict)
    table.add([route("v2")])
    table.apply([make_change(8, kind=ChangeKind.DELETED)])
    assert not isinstance(table._families["prod~pay~acme"], dict)


def test_it_is_compact() -> None:
    """At most 500 bytes a route, texts included, also where each is a family of its own."""
    count = 20_000
    table = Table(Clock("e1", 0))

    def routes() -> Iterator[Route]:
        for number in range(count):
            key = RouteKey(f"team-{number % 100}", f"service-{number}", "prod", f"v{number % 3}")
            url = f"https://service-{number}.internal.example:8443"
            yield Route(key, url, True, {"team": f"{number}"}, number, BEGINNING, BEGINNING)

    gc.collect()
    before = sys.getallocatedblocks()
    table.add(routes())
    families = table._families
    size = sys.getsizeof(families) + sum(_size(name) + _size(one) for name, one in families.items())
    assert size / count <= 500
    assert (sys.getallocatedblocks() - before) / count < 7


def _size(thing: object) -> int:
    parts = thing if isinstance(thing, tuple) else ()
    overhead = 16 if isinstance(thing, tuple) else 0
    return sys.getsizeof(thing) + overhead + sum(_size(part) for part in parts if not isinstance(part, bool))
