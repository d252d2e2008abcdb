"""xds.clients.meter: what is counted, and how much of what clients refuse is logged."""

from typing import Any

import pytest

from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.xds.clients import meter as module
from pointsman_server.xds.clients.meter import LOG_SECONDS, MOST_LOGGED, XdsMeter
from pointsman_server.xds.protocol.types import ResourceType
from tests.support.changes import make_change
from tests.support.xds_connections import Connections

ROOT = "v1~prod~pay~acme"
RDS = ResourceType.RDS


class Scene:
    """A meter, whose log and clock are those of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 0.0
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.metrics = Metrics()
        monkeypatch.setattr(module, "log", self)
        self.world = Connections(make_change(1))
        self.world.observers.append(XdsMeter(self.metrics, now=lambda: self.time))

    def warning(self, event: str, **facts: Any) -> None:
        self.logged.append((event, facts))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def refuse(self, text: str = "no") -> None:
        connection = self.world.connect("checkout\x07")
        await connection.ask(RDS, ROOT)
        await connection.answer(text)
        connection.close()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_streams_and_their_messages_are_counted(scene: Scene) -> None:
    assert scene.value("pointsman_xds_streams", kind="envoy") == 0
    connection = scene.world.connect()
    await connection.ask(RDS, ROOT)
    await connection.answer()
    assert scene.value("pointsman_xds_streams", kind="grpc") == 1
    assert scene.value("pointsman_xds_pushes_total", type="RDS") == 1
    assert scene.value("pointsman_xds_pushes_total", type="LDS") == 0
    assert scene.value("pointsman_xds_ack_seconds_count", type="RDS") == 1
    assert scene.value("pointsman_xds_refusals_total", type="RDS") == 0
    connection.close()
    assert scene.value("pointsman_xds_streams", kind="grpc") == 0


async def test_a_refusal_is_logged_with_the_words_of_the_client(scene: Scene) -> None:
    await scene.refuse("what is\x1b[2J this?" + 1000 * "x")
    ((event, facts),) = scene.logged
    assert event == "an xDS client refused a response"
    assert facts["text"].startswith("what is [2J this?x")
    assert len(facts["text"]) == module.MOST_TEXT
    assert (facts["resource_type"], facts["node"], facts["subject"]) == ("RDS", "checkout ", "anonymous")
    assert (facts["agent"], facts["peer"]) == ("gRPC test 1.0", "ipv4:127.0.0.1:4242")
    assert scene.value("pointsman_xds_refusals_total", type="RDS") == 1


async def test_of_many_refusals_some_are_logged_and_the_others_counted(scene: Scene) -> None:
    for _ in range(MOST_LOGGED + 3):
        await scene.refuse()
    assert len(scene.logged) == MOST_LOGGED
    scene.time = LOG_SECONDS
    await scene.refuse()
    assert [facts.get("count") for _, facts in scene.logged[MOST_LOGGED:]] == [3, None]
    assert scene.value("pointsman_xds_refusals_total", type="RDS") == MOST_LOGGED + 4
    del scene.logged[:]
    for _ in range(MOST_LOGGED):
        await scene.refuse()
    assert len(scene.logged) == MOST_LOGGED - 1
    scene.time = 2 * LOG_SECONDS
    await scene.refuse()
    assert scene.logged[MOST_LOGGED - 1] == (
        "xDS clients refused more responses, which were not logged",
        {"count": 1},
    )
