"""Which transport is chosen, and its channel options."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from pointsman_server.rpc.transport.server import PING_STRIKES, Connections, TransportUnavailable, choose

from pointsman_server.config.types import is_loopback
from pointsman_server.rpc.transport import server as transport
from tests.support import http2

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=[True, False])
def native_here(request, monkeypatch) -> bool:
    monkeypatch.setattr(transport, "find_spec", lambda _name: object() if request.param else None)
    return bool(request.param)


def test_auto_is_native_where_it_is_and_nothing_speaks_against_it(native_here):
    assert choose("auto") == ("envoy" if native_here else "grpcio")


@pytest.mark.parametrize("against", ["tls", "lifetimes", "exposed"])
def test_auto_is_grpcio_for_strangers_for_tls_and_for_lifetimes(native_here, against):
    assert choose("auto", **{against: True}) == "grpcio"


def test_native_is_native_when_asked_for(native_here):
    if native_here:
        assert choose("envoy", exposed=True) == "envoy"
    else:
        with pytest.raises(TransportUnavailable):
            choose("envoy", exposed=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "pod-1.internal"])
def test_everything_else_is_not(host):
    assert not is_loopback(host)


def test_connections_live_forever_unless_said_otherwise():
    names = {name for name, _ in Connections().options()}

    assert not names & {"grpc.max_connection_idle_ms", "grpc.max_connection_age_ms"}


def test_seconds_become_milliseconds_and_calls_may_wait():
    options = dict(Connections(keepalive=1.5, client_ping=0.0001, idle=2, age=3, pending=77).options())

    assert options["grpc.keepalive_time_ms"] == 1500
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 1
    assert (options["grpc.max_connection_idle_ms"], options["grpc.max_connection_age_ms"]) == (2000, 3000)
    assert options["grpc.http2.max_requests_per_read"] == 1
    assert options["grpc.server.max_pending_requests"] == 77
    assert options["grpc.server.max_pending_requests_hard_limit"] == 154


@pytest.mark.parametrize(("client_ping", "welcome"), [(0.001, True), (60, False)])
def test_a_client_without_calls_may_ping_as_often_as_it_is_told(client_ping, welcome):
    server = grpc.server(ThreadPoolExecutor(1), options=Connections(client_ping=client_ping).options())
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


@pytest.mark.parametrize("chosen", ["grpcio", "envoy"] if sys.platform == "linux" else ["grpcio"])
async def test_each_transport_takes_what_it_is_told(chosen):
    from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor

    server = transport.make_server(
        chosen, Interceptor(()), transport.CallLimits(), share_port=False, connections=Connections()
    )

    assert server.add_insecure_port("127.0.0.1:0") > 0
    await server.stop(None)
