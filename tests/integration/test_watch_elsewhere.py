"""Watchers of one server get what another server wrote, each change set whole: through Kafka, and from the history."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.watch_pb2 import WatchRequest
from tests.support.engines import fresh_redis
from tests.support.servers import serving, settings

SECONDS = 60.0
OLD, NEW = (RouteKey(tenant="team-a", service="payments", env="prod", version=version) for version in ("v1", "v2"))


@pytest.fixture(params=["Kafka", "history"])
def stubs(request: pytest.FixtureRequest, engines: Any, database_url: str) -> Iterator[tuple[Any, Any]]:
    """Give stubs of two servers on one database."""
    chosen: dict[str, object] = {"database_url": database_url, "redis_url": fresh_redis(engines.urls["REDIS_URL"])}
    if request.param == "Kafka":
        topic = f"watch-{time.time_ns()}"
        chosen |= {"kafka_bootstrap_servers": request.getfixturevalue("kafka_mock"), "kafka_topic": topic}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(settings(**chosen | {"roles": roles}))) for roles in ("api,relay", "api")
        ]
        channels = [stack.enter_context(grpc.insecure_channel(server.address)) for server in servers]
        yield RouteServiceStub(channels[0]), RouteServiceStub(channels[1])


def test_change_sets_of_another_server_arrive_whole(stubs: tuple[Any, Any]) -> None:
    writer, reader = stubs
    for key, active in ((OLD, True), (NEW, False)):
        writer.Create(pb.CreateRequest(key=key, url="https://one.internal", active=active), timeout=SECONDS)
    stream = reader.Watch(WatchRequest(tenant="team-a"), timeout=SECONDS)
    table: dict[str, bool] = {}
    for event in stream:
        table |= {route.key.version: route.active for route in event.snapshot.routes}
        if event.HasField("checkpoint"):
            break
    assert table == {"v1": True, "v2": False}
    writes: list[int] = []
    sets: list[list[int]] = []
    for number in range(20):
        key = (NEW, OLD)[number % 2]
        answer = writer.Activate(pb.ActivateRequest(key=key, exclusive=True), timeout=SECONDS)
        writes.append(answer.revision)
    routes = [
        pb.ImportedRoute(
            key=RouteKey(tenant="team-a", service=f"s{number}", env="prod", version="v1"), url="https://many.internal"
        )
        for number in range(700)
    ]
    writer.Import(pb.ImportRequest(routes=routes), timeout=SECONDS)
    part: list[int] = []
    for event in stream:
        part += [change.revision for change in event.changes.changes]
        if event.HasField("changes") and not event.changes.partial:
            assert part[-1] == event.changes.as_of.revision
            sets.append(part)
            part = []
        if sets and len(sets[-1]) > 2:
            break
    stream.cancel()
    # Two changes for each activation; the import is one set.
    assert [len(each) for each in sets] == [2] * 20 + [700]
    assert [each[-1] for each in sets[:20]] == writes
    revisions = [revision for each in sets for revision in each]
    assert revisions == list(range(revisions[0], revisions[-1] + 1))
