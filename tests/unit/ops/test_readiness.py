"""ops.readiness: what a server waits for before calls may be sent to it."""

import pytest

from pointsman_server.ops.health_monitor import DependencyDown, HealthMonitor
from pointsman_server.ops.readiness import Readiness


class Scene:
    """A readiness over one dependency that can be down."""

    def __init__(self) -> None:
        self.is_up = True
        self.monitor = HealthMonitor({"store": self._check}, required=frozenset({"store"}), changed=self._nothing)
        self.readiness = Readiness(self.monitor)

    async def _check(self) -> None:
        if not self.is_up:
            raise DependencyDown("it is down")

    async def _nothing(self, _monitor: HealthMonitor) -> None:
        pass

    def state(self) -> tuple[bool, bool]:
        return self.readiness.can_answer, self.readiness.ready


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.monitor.round()
    return scene


async def test_a_server_that_awaits_nothing_and_lacks_nothing_is_ready(scene: Scene) -> None:
    assert scene.state() == (True, True)
    assert scene.readiness.waiting_for == []


async def test_a_server_whose_dependency_is_down_is_not_ready(scene: Scene) -> None:
    scene.is_up = False
    await scene.monitor.round()

    assert scene.state() == (False, False)
    assert scene.readiness.waiting_for == []


async def test_a_server_is_not_ready_until_all_has_come(scene: Scene) -> None:
    come: set[str] = set()
    for name in ("start-up", "keys"):
        scene.readiness.wait_for(name, lambda name=name: name in come)  # type: ignore[misc]

    assert (scene.readiness.waiting_for, *scene.state()) == (["start-up", "keys"], False, False)
    come.add("start-up")
    assert (scene.readiness.waiting_for, *scene.state()) == (["keys"], False, False)
    come.add("keys")
    assert (scene.readiness.waiting_for, *scene.state()) == ([], True, True)


async def test_what_has_come_is_not_awaited_again(scene: Scene) -> None:
    come = {"keys"}
    scene.readiness.wait_for("keys", lambda: "keys" in come)
    assert scene.readiness.ready

    come.clear()
    assert scene.readiness.ready


async def test_a_draining_server_answers_and_is_not_ready(scene: Scene) -> None:
    scene.readiness.draining = True

    assert scene.state() == (True, False)
