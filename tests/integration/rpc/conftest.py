"""The RPC suite: pytest-grpc's fixtures, overridden to use the real server, once on each transport."""

import itertools
from collections.abc import Callable, Iterator

import grpc
import pytest

from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import RunningServer, serving, settings


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def grpc_server(request: pytest.FixtureRequest, engines, template_database: str) -> Iterator[RunningServer]:
    """A server on a database and a cache of its own."""
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        chosen = settings(transport=request.param, database_url=database_url, redis_url=redis_url)
        with serving(chosen) as server:
            yield server


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: RunningServer) -> str:
    """Where it listens."""
    return grpc_server.address


@pytest.fixture(scope="module")
def grpc_stub_cls() -> Callable[[grpc.Channel], RouteServiceStub]:
    """The stub that the tests call through."""
    return RouteServiceStub


_numbers = itertools.count(1)


@pytest.fixture
def key() -> RouteKey:
    """A key that no other test uses."""
    return RouteKey(tenant=f"tenant-{next(_numbers)}", service="payments", env="prod", version="v1")
