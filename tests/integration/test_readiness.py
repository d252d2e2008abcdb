"""When a server is ready: once it listens and can authenticate callers, until it drains."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman_server.adapters.kafka.group_consumer import GroupConsumer
from pointsman_server.app.application import App
from pointsman_server.config.settings import Settings
from tests.support.envoy import envoy_before
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, jwks
from tests.support.processes import get_json, get_metric
from tests.support.servers import EVERYBODY, settings

PATIENCE_SECONDS = 30.0


@pytest.fixture
def chosen(database_url: str, redis_url: str) -> Settings:
    return settings(database_url=database_url, redis_url=redis_url)


async def readiness(app: App) -> tuple[int, dict[str, Any]]:
    return await asyncio.to_thread(get_json, f"http://127.0.0.1:{app.http_port}/health/ready")


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds, and fail if it does not."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


async def test_a_server_that_starts_is_not_ready(chosen: Settings) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []
    app = App(chosen)
    start_access = app.access.start

    async def asked_before(stack: AsyncExitStack) -> None:
        seen.append(await readiness(app))
        await start_access(stack)

    app.access.start = asked_before  # type: ignore[method-assign]
    async with app:
        seen.append(await readiness(app))

    (before, body), (after, _) = seen
    assert (before, body["status"], body["draining"]) == (503, "not ready", False)
    assert body["waiting_for"] == ["start-up"]
    assert body["dependencies"]["postgres"]["up"]
    assert after == 200


async def test_a_server_is_not_ready_until_envoy_listens(chosen: Settings) -> None:
    app = App(chosen.model_copy(update={"transport": "envoy"}))
    async with app:
        assert (await readiness(app))[0] == 503
        assert app.grpc_server.application
        async with envoy_before(app.grpc_server.application, app.settings) as (port, *_):
            await app.on_listening(port)
            assert (await readiness(app))[0] == 200


async def test_a_server_is_not_ready_until_grpc_listens(chosen: Settings) -> None:
    app = App(chosen)
    codes: list[int] = []
    listen = app.grpc_server.start

    async def asked_before() -> None:
        codes.append((await readiness(app))[0])
        await listen()

    app.grpc_server.start = asked_before  # type: ignore[method-assign]
    async with app:
        codes.append((await readiness(app))[0])
        _, writer = await asyncio.open_connection("127.0.0.1", app.grpc_server.port)
        writer.close()

    assert codes == [503, 200]


async def test_a_server_that_cannot_tell_who_calls_is_not_ready_by_http_grpc_or_metric(
    chosen: Settings, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    access = {
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_jwks_file": keys,
        "policy_file": EVERYBODY,
        "access_refresh_seconds": 0.02,
    }
    async with (
        App(chosen.model_copy(update=access)) as app,
        grpc.aio.insecure_channel(f"127.0.0.1:{app.grpc_server.port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        async def serving() -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(service="readiness"))
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        async def ready() -> bool:
            return (await readiness(app))[0] == 200

        code, body = await readiness(app)
        assert (code, body["status"], body["waiting_for"]) == (503, "not ready", ["issuer keys"])
        assert not await serving()
        metrics = f"http://127.0.0.1:{app.http_port}"
        assert await asyncio.to_thread(get_metric, metrics, "pointsman_ready") == 0

        keys.write_bytes(jwks(SigningKey()))
        await eventually(ready)
        await eventually(serving)

        # What was read once stays in force, so the server can go on.
        keys.unlink()
        await eventually(lambda: _failed_again(app))
        assert await ready()


async def _failed_again(app: App) -> bool:
    value = app.metrics.registry.get_sample_value
    labels = {"what": "issuer_keys", "outcome": "failed"}
    before = value("pointsman_access_renewals_total", labels)
    await asyncio.sleep(0.02)
    return bool(before is not None and value("pointsman_access_renewals_total", labels) != before)


async def test_a_server_without_the_api_says_that_it_drains(
    chosen: Settings, kafka_mock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []
    values = {"roles": frozenset({"cache"}), "kafka_bootstrap_servers": kafka_mock}
    app = App(chosen.model_copy(update=values))
    close = GroupConsumer.close

    async def asked_before(consumer: GroupConsumer) -> None:
        seen.append(await readiness(app))
        await close(consumer)

    monkeypatch.setattr(GroupConsumer, "close", asked_before)
    async with app:
        assert (await readiness(app))[0] == 200
        value = app.metrics.registry.get_sample_value
        assert [value("pointsman_role", {"role": role}) for role in ("api", "cache")] == [0, 1]

    ((code, body),) = seen
    assert (code, body["status"], body["draining"]) == (503, "not ready", True)
