"""How many connections a server takes, and how long they live."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.support import http2
from tests.support.engines import fresh_redis
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

MOST = 5
NOT_FOUND = 5
KEY = RouteKey(tenant="nobody", service="payments", env="prod", version="v1")
RESOLVE = pb.ResolveRequest(key=KEY).SerializeToString()
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST_SERVICES = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
TRANSPORTS = ["grpcio", "envoy"]


@pytest.fixture
def urls(engines, database_url: str) -> dict[str, str]:
    return {"database_url": database_url, "redis_url": fresh_redis(engines.urls["REDIS_URL"])}


@contextmanager
def running(transport: str, urls: dict[str, str], **more: object) -> Iterator[RunningServer]:
    with serving(settings(transport=transport, **urls, **more)) as server:
        yield server


def answered(connection: http2.Connection) -> bool:
    """Call; say whether the call was answered, by a route that is not there."""
    call = connection.call(RESOLVE)
    assert connection.until(lambda: connection.ended(call) or connection.gone)
    return connection.status(call) == NOT_FOUND


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_connection_more_is_closed_and_the_others_go_on(transport: str, urls: dict[str, str]) -> None:
    with running(transport, urls, max_connections=MOST) as server, ExitStack() as stack:
        taken = [stack.enter_context(http2.connected(server.address)) for _ in range(MOST)]
        assert all(answered(connection) for connection in taken)

        with http2.connected(server.address) as refused:
            assert refused.until(lambda: refused.gone)
            assert not refused.settings
        assert all(answered(connection) for connection in taken)

        taken[0].close()
        assert eventually(lambda: takes_one_more(server))
        assert all(answered(connection) for connection in taken[1:])


def takes_one_more(server: RunningServer) -> bool:
    with http2.connected(server.address) as another:
        return answered(another)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_stream_goes_on_after_goaway_when_its_connection_is_of_age(transport: str, urls: dict[str, str]) -> None:
    """Envoy never cuts it; grpcio does after a grace of a minute."""
    with (
        running(transport, urls, connection_age_seconds=1) as server,
        http2.connected(server.address) as connection,
    ):
        stream = connection.stream()
        connection.send(connection.begin(stream, REFLECTION))
        ask = http2.data(stream, http2.message(LIST_SERVICES))
        connection.send(ask)
        assert connection.until(lambda: connection.data.get(stream))
        # GOAWAY comes twice: first for the calls to come, then for those that were on their way (RFC 9113, 6.8).
        assert connection.until(lambda: connection.goaway and connection.goaway.last_stream_id == stream)
        before = connection.data[stream]

        connection.send(ask)

        assert connection.until(lambda: connection.data[stream] == 2 * before)
        assert not connection.gone
        assert stream not in connection.resets
        connection.send(http2.data(stream, b"", ended=True))
        assert connection.until(lambda: connection.status(stream) == 0)
