"""xds.clients.survey: the gauges of names that clients cannot be led to."""

import asyncio

import pytest

from pointsman_server.domain.routes import ChangeKind
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.xds.clients import survey
from pointsman_server.xds.clients.survey import Survey
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.views import ClientKind, View
from tests.support.changes import make_change
from tests.support.waiting import becomes
from tests.support.xds_connections import Connections


class Scene:
    def __init__(self, world: Connections) -> None:
        self.metrics = Metrics()
        self.survey = Survey(world.clients, lambda: world.snapshot, self.metrics, FairShare())

    async def values(self) -> dict[str, float | None]:
        await self.survey.look()
        found = self.metrics.registry.get_sample_value
        kinds = {str(kind): found("pointsman_xds_not_carried", {"kind": kind}) for kind in ClientKind}
        return {**kinds, "collisions": found("pointsman_xds_collisions")}


async def test_names_are_counted_for_the_kind_of_client_that_asks_for_them() -> None:
    # The URL of this route has a path, which Envoy rewrites and a gRPC client cannot.
    world = Connections(make_change(1))
    scene = Scene(world)
    assert await scene.values() == {"grpc": 0, "envoy": 0, "collisions": 0}
    for view in (View(), View(), View(ClientKind.ENVOY)):
        await world.connect(view=view).ask(ResourceType.CDS, "v1~prod~pay~acme", "prod~pay~acme", "unknown")
    assert await scene.values() == {"grpc": 2, "envoy": 0, "collisions": 0}
    world.change(make_change(2, kind=ChangeKind.DELETED))
    assert await scene.values() == {"grpc": 0, "envoy": 0, "collisions": 0}


async def test_a_table_is_compared_once_and_in_turns_with_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "FAMILIES_IN_A_TURN", 2)
    compared: list[list[str]] = []
    monkeypatch.setattr(survey, "collisions", lambda roots: compared.append(sorted(roots)) or ())
    world = Connections(*(make_change(number, f"service-{number}") for number in range(1, 6)))
    scene = Scene(world)
    for _ in range(2):
        await scene.survey.look()
    assert compared == [sorted(world.snapshot.table.roots())]
    world.change(make_change(6))
    await scene.survey.look()
    assert len(compared) == 2


async def test_it_looks_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "SURVEY_SECONDS", 0.0)
    scene = Scene(Connections(make_change(1)))
    looks: list[int] = []

    async def look() -> None:
        looks.append(1)

    monkeypatch.setattr(scene.survey, "look", look)
    running = asyncio.create_task(scene.survey.run())

    async def looked() -> bool:
        return len(looks) > 1

    assert await becomes(looked)
    running.cancel()


async def test_names_that_differ_in_case_alone_are_counted() -> None:
    world = Connections(make_change(1))
    scene = Scene(world)
    world.change(make_change(2, "PAY"))
    # The family, and its version.
    assert (await scene.values())["collisions"] == 2
    world.change(make_change(3, "PAY", ChangeKind.DELETED))
    assert (await scene.values())["collisions"] == 0
