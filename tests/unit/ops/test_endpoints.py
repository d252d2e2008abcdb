"""ops.endpoints: the paths of operators, by the methods and formats that HTTP clients ask for."""

from collections.abc import AsyncIterator

import httpx
import pytest

from pointsman_server.ops.endpoints import Endpoints
from pointsman_server.ops.health_monitor import DependencyDown, HealthMonitor
from pointsman_server.ops.readiness import Readiness
from pointsman_server.telemetry.metrics import Metrics

PATHS = ("/metrics", "/health", "/health/ready", "/health/live")
OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"


class Scene:
    """The endpoints over two dependencies of which each can be down."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.metrics = Metrics()
        self.monitor = HealthMonitor(
            {name: self._check(name) for name in ("postgres", "kafka")},
            required=frozenset({"postgres"}),
            changed=self._nothing,
            now=lambda: 1_800_000_000.5,
        )
        self.readiness = Readiness(self.monitor)
        endpoints = Endpoints(self.monitor, self.readiness, self.metrics.render)
        transport = httpx.ASGITransport(endpoints.application)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    def _check(self, name: str) -> object:
        async def check() -> None:
            if name in self.down:
                raise DependencyDown(f"{name} is down")

        return check

    async def _nothing(self, _monitor: HealthMonitor) -> None:
        pass

    async def ready(self) -> httpx.Response:
        await self.monitor.round()
        return await self.http.get("/health/ready")


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    await scene.http.aclose()


async def test_a_server_whose_dependencies_are_up_is_ready(scene: Scene) -> None:
    response = await scene.ready()

    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert response.json()["dependencies"]["kafka"] == {
        "name": "kafka",
        "required": False,
        "up": True,
        "detail": "ok",
        "since": "2027-01-15T08:00:00Z",
    }


async def test_a_server_without_what_it_can_do_without_is_degraded_and_ready(scene: Scene) -> None:
    scene.down.add("kafka")
    response = await scene.ready()

    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert response.json()["dependencies"]["kafka"]["detail"] == "kafka is down"


async def test_a_server_without_what_it_requires_is_not_ready(scene: Scene) -> None:
    scene.down.add("postgres")
    response = await scene.ready()

    assert (response.status_code, response.json()["status"]) == (503, "not ready")


async def test_a_draining_server_is_not_ready_and_alive(scene: Scene) -> None:
    scene.readiness.draining = True
    response = await scene.ready()

    assert (response.status_code, response.json()["draining"]) == (503, True)
    assert (await scene.http.get("/health/live")).json() == {"status": "live"}


async def test_a_server_that_still_waits_says_for_what(scene: Scene) -> None:
    scene.readiness.wait_for("issuer keys", lambda: False)
    response = await scene.ready()

    body = response.json()
    assert (response.status_code, body["status"], body["waiting_for"]) == (503, "not ready", ["issuer keys"])
    assert body["dependencies"]["postgres"]["up"]


@pytest.mark.parametrize(
    ("accept", "media_type", "end"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8", ""),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", ""),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores", "# EOF\n"),
    ],
)
async def test_metrics_come_in_the_format_that_the_scraper_accepts(
    scene: Scene, accept: str, media_type: str, end: str
) -> None:
    response = await scene.http.get("/metrics", headers={"accept": accept})

    assert response.headers["content-type"] == media_type
    assert response.headers["vary"].startswith("Accept")
    assert "pointsman_ready 0.0" in response.text
    assert response.text.endswith(end)


async def test_a_large_response_is_compressed_where_the_client_accepts_it(scene: Scene) -> None:
    packed = await scene.http.get("/metrics", headers={"accept-encoding": "gzip"})
    plain = await scene.http.get("/metrics", headers={"accept-encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_get_without_a_body(scene: Scene, path: str) -> None:
    get, head = await scene.http.get(path), await scene.http.head(path)

    assert (head.status_code, head.headers, head.content) == (get.status_code, get.headers, b"")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_another_method_is_refused_with_those_that_are_allowed(scene: Scene, method: str, path: str) -> None:
    response = await scene.http.request(method, path)

    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/", "/elsewhere", "/metrics/x", "/health/"])
async def test_another_path_is_not_found(scene: Scene, path: str) -> None:
    assert (await scene.http.get(path)).status_code == 404


async def test_a_request_may_name_its_whole_url_or_a_query(scene: Scene) -> None:
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "http://host:9464/health/live",
        "headers": [],
        "query_string": b"",
    }
    endpoints = Endpoints(scene.monitor, scene.metrics.render, lambda: False)
    await endpoints.application(scope, receive, send)  # type: ignore[arg-type]

    assert sent[0]["status"] == 200
    assert (await scene.http.get("/health/live?a=b")).status_code == 200
