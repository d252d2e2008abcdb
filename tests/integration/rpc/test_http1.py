"""HTTP/1.1 on the gRPC port: what is slow, large or ambiguous is refused by a status, and the connection is closed."""

import json
import socket
from collections.abc import Iterator

import pytest

from pointsman_server.rpc.transport.envoy import bootstrap
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import RunningServer, serving, settings

HEADERS_SECONDS = DEADLINE_SECONDS = 1
PATIENCE_SECONDS = 30
GET = b"GET / HTTP/1.1\r\nhost: a\r\n"
CREATE = b"POST /api/v1/routes HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def grpc_server(engines, template_database: str) -> Iterator[RunningServer]:
    """A server on Envoy, which waits for headers not as long as in production."""
    with pytest.MonkeyPatch.context() as patch, fresh_database(template_database) as database_url:
        patch.setattr(bootstrap, "HANDSHAKE_SECONDS", HEADERS_SECONDS)
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        engine_urls = {"database_url": database_url, "redis_url": redis_url}
        with serving(settings(transport="envoy", deadline_seconds=DEADLINE_SECONDS, **engine_urls)) as server:
            yield server


def sent(server: RunningServer, request: bytes) -> bytes:
    """Send bytes, and return what comes until the server hangs up. Raises TimeoutError when it does not."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as wire:
        wire.sendall(request)
        received = b""
        while part := wire.recv(1 << 16):
            received += part
        return received


def status_of(answer: bytes) -> tuple[int, int]:
    """Return the status of HTTP, and the code in the body, of the only response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    return int(head.split(b" ")[1]), json.loads(body)["code"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(GET + b"x-", (408, 4), id="headers that do not come"),
        pytest.param(
            CREATE + b"connection: close\r\ncontent-length: 9\r\n\r\n{", (504, 4), id="a body that does not come"
        ),
        pytest.param(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", (431, 8), id="a long path"),
        pytest.param(GET + b"a: b\r\n" * 2500 + b"\r\n", (431, 8), id="many headers"),
        pytest.param(
            CREATE + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + GET + b"\r\n",
            (400, 3),
            id="two lengths, and a request hidden in the body",
        ),
        pytest.param(CREATE + b"transfer-encoding: chunked\r\n\r\nx\r\n", (400, 3), id="a chunk without a size"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", (404, 5), id="a tunnel"),
    ],
)
def test_it_is_refused_once(grpc_server: RunningServer, request_bytes: bytes, status: tuple[int, int]) -> None:
    assert status_of(sent(grpc_server, request_bytes)) == status


def test_http_1_0_is_refused(grpc_server: RunningServer) -> None:
    assert sent(grpc_server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 426 ")
