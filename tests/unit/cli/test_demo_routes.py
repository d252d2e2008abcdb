"""The demo's table of routes: believable, and always the same."""

from collections import Counter
from itertools import islice

from pointsman.rules import url_problem
from pointsman_server.cli import demo_routes
from pointsman_server.domain.routes import RouteKey
from pointsman_server.writes.group_commit import GroupCommitter
from tests.support.fakes import MemoryCache, MemoryStore

MANY = 5000


def test_it_makes_as_many_routes_as_asked() -> None:
    assert [len(list(demo_routes.routes(count))) for count in (0, 1, 719, 720, 721, MANY)] == [
        0,
        1,
        719,
        720,
        721,
        MANY,
    ]


def test_it_makes_the_same_routes_every_time_and_fewer_are_the_first_of_more() -> None:
    assert list(demo_routes.routes(1000)) == list(islice(demo_routes.routes(MANY), 1000))


def test_the_first_is_the_one_that_the_documentation_resolves() -> None:
    (first,) = demo_routes.routes(1)
    assert str(first.key) == "team-a/payments/prod/v2"
    assert first.active


def test_no_key_comes_twice() -> None:
    assert len({route.key for route in demo_routes.routes(MANY)}) == MANY


def test_every_key_and_every_url_is_valid() -> None:
    for route in demo_routes.routes(MANY):
        assert RouteKey.parse(str(route.key)) == route.key
        assert url_problem(route.url) is None


def test_every_key_has_a_url_of_its_own() -> None:
    assert len({route.url for route in demo_routes.routes(MANY)}) == MANY


def test_some_routes_are_active_and_some_are_not() -> None:
    active = Counter(route.active for route in demo_routes.routes(720))
    assert active[True] > active[False] > 0


async def test_loading_creates_what_is_not_there_yet_and_says_how_many_that_were() -> None:
    store = MemoryStore()
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    assert await demo_routes.load(committer, 50) == 50
    assert await demo_routes.load(committer, 80) == 30
    assert await demo_routes.load(committer, 80) == 0
    assert store.routes.keys() == {route.key for route in demo_routes.routes(80)}
    assert store.revision == 80
