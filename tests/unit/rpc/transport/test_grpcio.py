"""rpc.transport.grpcio: the channel options of the server."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.transport.grpcio import PENDING_CALLS, PING_STRIKES, connection_options, make_server
from pointsman_server.rpc.transport.limits import CallLimits, Connections
from pointsman_server.rpc.transport.registration import Behaviour, register
from tests.support import http2

pytestmark = pytest.mark.filterwarnings("error")


def test_connections_live_forever_unless_said_otherwise():
    names = {name for name, _ in connection_options(Connections())}

    assert not names & {"grpc.max_connection_idle_ms", "grpc.max_connection_age_ms"}


def test_seconds_become_milliseconds_and_calls_may_wait():
    options = dict(connection_options(Connections(keepalive=1.5, client_ping=0.0001, idle=2, age=3)))

    assert options["grpc.keepalive_time_ms"] == 1500
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 1
    assert (options["grpc.max_connection_idle_ms"], options["grpc.max_connection_age_ms"]) == (2000, 3000)
    assert options["grpc.http2.max_requests_per_read"] == 1
    assert options["grpc.server.max_pending_requests"] == PENDING_CALLS
    assert options["grpc.server.max_pending_requests_hard_limit"] == 2 * PENDING_CALLS


@pytest.mark.parametrize(("client_ping", "welcome"), [(0.001, True), (60, False)])
def test_a_client_without_calls_may_ping_as_often_as_it_is_told(client_ping, welcome):
    server = grpc.server(ThreadPoolExecutor(1), options=connection_options(Connections(client_ping=client_ping)))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with http2.connected(f"127.0.0.1:{port}", {}) as connection:
            for number in range(1, 3 * PING_STRIKES):
                connection.send(http2.ping())
                connection.until(lambda number=number: connection.pongs == number or connection.gone)
                time.sleep(0.002)  # longer than a client must leave between pings
            assert connection.gone is not welcome
    finally:
        server.stop(grace=None).wait()


async def test_a_server_takes_what_it_is_told() -> None:
    server = make_server(Interceptor(()), CallLimits(), share_port=False, connections=Connections())

    assert server.add_insecure_port("127.0.0.1:0") > 0
    await server.stop(None)


@pytest.mark.parametrize("small_requests", [True, False])
async def test_bandwidth_is_measured_by_pings_unless_requests_are_small(small_requests: bool) -> None:
    async def answer(request: bytes, _context: object) -> bytes:
        return request

    connections = Connections()
    options = {"share_port": False, "connections": connections, "small_requests": small_requests}
    server = make_server(Interceptor(()), CallLimits(), **options)
    register(server, "test", {"Echo": Behaviour(answer, bytes)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def pings() -> int:
        with http2.connected(f"127.0.0.1:{port}", {}) as connection:
            for _ in range(3):
                call = connection.call(b"small", "/test/Echo")
                assert connection.until(lambda call=call: connection.ended(call))
                assert connection.status(call) == 0
            return connection.pings

    try:
        assert bool(await asyncio.to_thread(pings)) is not small_requests
    finally:
        await server.stop(None)
