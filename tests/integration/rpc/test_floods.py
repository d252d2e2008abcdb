"""Frames that cost a client nothing and Envoy something: who floods is disconnected, and others are answered."""

from collections.abc import Iterator

import grpc
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PriorityFrame

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support import http2
from tests.support.engines import fresh_database, fresh_redis
from tests.support.refusals import refused
from tests.support.servers import RunningServer, serving, settings

KEY = RouteKey(tenant="nobody", service="payments", env="prod", version="v1")
# Frames sent at once, and how often at most. A million: what is not ended by then is not bounded.
BURST, BURSTS = 1000, 1000


@pytest.fixture(scope="module")
def grpc_server(engines, template_database: str) -> Iterator[RunningServer]:
    """A server on Envoy; docs/operating.md says what grpcio lacks."""
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        with serving(settings(transport="envoy", database_url=database_url, redis_url=redis_url)) as server:
            yield server


@pytest.fixture
def abuser(grpc_server: RunningServer) -> Iterator[http2.Connection]:
    with http2.connected(grpc_server.address) as connection:
        assert connection.until(lambda: connection.settings and connection.settings_acked)
        yield connection


@pytest.fixture(autouse=True)
def bystander(grpc_server: RunningServer) -> Iterator[None]:
    """Call before and after the flood, by one connection."""
    with grpc.insecure_channel(grpc_server.address, [("grpc.enable_retries", 0)]) as channel:
        resolve = RouteServiceStub(channel).Resolve
        assert refused(resolve, pb.ResolveRequest(key=KEY), timeout=http2.PATIENCE_SECONDS).reason == "ROUTE_NOT_FOUND"
        yield
        assert refused(resolve, pb.ResolveRequest(key=KEY), timeout=http2.PATIENCE_SECONDS).reason == "ROUTE_NOT_FOUND"


def flooded(abuser: http2.Connection, frame: bytes, *, reading: bool = True) -> bool:
    """Send a frame again and again; say whether the server hung up."""
    for _ in range(BURSTS):
        if not abuser.send(frame * BURST):
            break
        if reading:
            abuser.until(lambda: abuser.gone, patience=0.001)
    return abuser.gone


def test_pings_whose_answers_are_never_read(abuser: http2.Connection) -> None:
    assert flooded(abuser, http2.ping(), reading=False)


def test_data_without_bytes(abuser: http2.Connection) -> None:
    stream = abuser.stream()
    abuser.send(abuser.begin(stream))

    assert flooded(abuser, http2.frame(DataFrame(stream, b"")))


def test_headers_that_never_end(abuser: http2.Connection) -> None:
    """CVE-2024-30255."""
    stream = abuser.stream()
    abuser.send(http2.frame(HeadersFrame(stream, abuser.fields(http2.CALL))))

    assert flooded(abuser, http2.frame(ContinuationFrame(stream, b"")))


def test_priorities(abuser: http2.Connection) -> None:
    """CVE-2019-9513."""
    stream = abuser.stream()
    abuser.send(abuser.begin(stream))

    assert flooded(abuser, http2.frame(PriorityFrame(stream, depends_on=0, stream_weight=5)))


def test_windows_that_open_for_nothing(abuser: http2.Connection) -> None:
    assert flooded(abuser, http2.open_window(0, 1))
