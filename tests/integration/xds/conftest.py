"""Real xDS clients of each kind on a real server: one set of them for each file of tests."""

from collections.abc import Collection, Iterator

import pytest

from pointsman.xds.options import Program
from tests.support.engines import fresh_database, fresh_redis
from tests.support.xds_clients.clients import KINDS, XdsClient
from tests.support.xds_clients.fleet import Fleet, fleet


@pytest.fixture(scope="module")
def kinds() -> Collection[Program]:
    """The kinds of clients that the tests of a file use."""
    return KINDS


@pytest.fixture(scope="module")
def shared(
    engines, template_database: str, tmp_path_factory: pytest.TempPathFactory, kinds: Collection[Program]
) -> Iterator[Fleet]:
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        with fleet(database_url, redis_url, tmp_path_factory.mktemp("xds"), kinds) as running:
            yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Program:
    found: Program = request.param
    return found


@pytest.fixture
def client(shared: Fleet, kind: Program) -> Iterator[XdsClient]:
    """A client of each kind in turn, which calls nothing any more when the test ends."""
    found = shared.clients[kind]
    yield found
    found.probe.drop_all()


@pytest.fixture
def clients(shared: Fleet) -> Iterator[list[XdsClient]]:
    """The clients of all kinds together."""
    found = list(shared.clients.values())
    yield found
    for each in found:
        each.probe.drop_all()


@pytest.fixture
def family(shared: Fleet) -> str:
    return shared.family()
