"""gRPC-Web, as browsers speak it, and which pages may call."""

import base64
from collections.abc import Iterator

import httpx
import pytest
from grpc_health.v1 import health_pb2

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import RunningServer, serving, settings

SERVICE = "/pointsman.v1.RouteService"
URL = "https://payments.internal:8443"
OURS, OTHER = "https://console.example", "https://other.example"
PREFIX_BYTES = 5
TRAILERS = 0x80


@pytest.fixture(scope="module", params=["", OURS], ids=["cors off", "cors on"])
def origins(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def grpc_server(engines, template_database: str, origins: str) -> Iterator[RunningServer]:
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        chosen = settings(transport="envoy", database_url=database_url, redis_url=redis_url, cors_origins=origins)
        with serving(chosen) as server:
            yield server


@pytest.fixture
def browser(grpc_server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{grpc_server.address}") as client:
        yield client


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4) + message


def frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    while body:
        end = PREFIX_BYTES + int.from_bytes(body[1:PREFIX_BYTES])
        yield body[0], body[PREFIX_BYTES:end]
        body = body[end:]


def decoded(text: str) -> bytes:
    """Decode base64 in which each frame may end with padding of its own."""
    return b"".join(base64.b64decode(text[at : at + 4]) for at in range(0, len(text), 4))


def trailers_of(frame: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in frame.decode().replace(" ", "").split("\r\n") if line)


def call(browser: httpx.Client, method: str, request: bytes, kind: str) -> list[tuple[int, bytes]]:
    content = framed(request)
    if kind.startswith("application/grpc-web-text"):
        content = base64.b64encode(content)
    answer = browser.post(method, content=content, headers={"content-type": kind, "accept": kind, "x-grpc-web": "1"})
    assert (answer.status_code, answer.headers["content-type"].split("+")[0]) == (200, kind.split("+")[0])
    return list(frames(decoded(answer.text) if "text" in kind else answer.content))


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text+proto"])
def test_a_call_and_its_error(browser: httpx.Client, key: RouteKey, kind: str) -> None:
    request = pb.CreateRequest(key=key, url=URL).SerializeToString()

    message, end = call(browser, f"{SERVICE}/Create", request, kind)
    assert pb.CreateResponse.FromString(message[1]).route.url == URL
    assert (end[0], trailers_of(end[1])["grpc-status"]) == (TRAILERS, "0")

    refusal = browser.post(
        f"{SERVICE}/Create",
        content=base64.b64encode(framed(request)) if "text" in kind else framed(request),
        headers={"content-type": kind, "x-grpc-web": "1"},
    )
    assert refusal.headers["grpc-status"] == "6"  # ALREADY_EXISTS
    assert refusal.headers["grpc-status-details-bin"]


def test_a_stream_of_the_server(browser: httpx.Client) -> None:
    request = framed(health_pb2.HealthCheckRequest().SerializeToString())
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}

    with browser.stream("POST", "/grpc.health.v1.Health/Watch", content=request, headers=headers) as answer:
        received = b""
        for part in answer.iter_raw():
            received += part
            if len(received) > PREFIX_BYTES:
                break

    (flag, message), *_ = frames(received)
    assert (flag, health_pb2.HealthCheckResponse.FromString(message).status) == (
        0,
        health_pb2.HealthCheckResponse.SERVING,
    )


class TestOrigins:
    def preflight(self, browser: httpx.Client, origin: str) -> httpx.Response:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-grpc-web"}
        return browser.options(f"{SERVICE}/Create", headers={"origin": origin, **asked})

    def test_only_a_named_origin_passes_the_preflight(self, browser: httpx.Client, origins: str) -> None:
        ours = self.preflight(browser, OURS).headers

        assert ours.get("access-control-allow-origin") == (origins or None)
        assert ("x-grpc-web" in ours.get("access-control-allow-headers", "")) == bool(origins)
        assert "access-control-allow-origin" not in self.preflight(browser, OTHER).headers

    def test_only_a_named_origin_may_read_the_answer(self, browser: httpx.Client, origins: str) -> None:
        ours = browser.get("/v1/routes", headers={"origin": OURS})
        other = browser.get("/v1/routes", headers={"origin": OTHER})

        assert ours.headers.get("access-control-allow-origin") == (origins or None)
        assert "access-control-allow-origin" not in other.headers
