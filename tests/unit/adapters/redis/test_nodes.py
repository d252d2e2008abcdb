"""Which node gets a script, on fake connections."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from pointsman_server.adapters.redis import nodes as module
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Call, Script
from pointsman_server.adapters.redis.deployment import Address, Deployment
from pointsman_server.adapters.redis.discovery import NotFound, View
from pointsman_server.adapters.redis.names import slot_of
from pointsman_server.adapters.redis.nodes import FollowedNodes, Node, is_moving

A, B, C = ("a", 1), ("b", 2), ("c", 3)
CALL = Call(Script.of("return 1"), (), ["key"])
OTHER = Call(Script.of("return 2"), (), ["other"])
SLOT = slot_of("key")


class FakeConnections:
    def __init__(self, address: Address) -> None:
        self.address = address
        self.replies: list[Any] = []
        self.asked: list[bool] = []
        self.closed = self.connects = 0

    async def run(self, call: Call, *, asking: bool = False) -> Any:
        self.asked.append(asking)
        reply = self.replies.pop(0) if self.replies else f"{self.address[0]} {call.keys[0]}"
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        return [self.replies.pop(0) if self.replies else f"{self.address[0]} {call.keys[0]}" for call in calls]

    async def connect(self) -> None:
        self.connects += 1
        raise RedisConnectionError("the call will say it")

    async def close(self) -> None:
        self.closed += 1


class Scene:
    """A cluster; ``view`` is what is found when it is looked for, or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.view: Any = [A] * 16384
        self.looks = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.of: dict[Address, FakeConnections] = {}
        self.now = 100.0
        monkeypatch.setattr(module, "read_slots", self._read)
        monkeypatch.setattr(module, "make_pool", lambda address, _options: address)
        monkeypatch.setattr(module, "ScriptConnections", self._connect)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.nodes = FollowedNodes(Deployment.parse("redis+cluster://a:1"), Breaker)

    def _connect(self, address: Address) -> FakeConnections:
        made = FakeConnections(address)
        self.of[address] = made
        return made

    async def _read(self, _nodes: Any) -> View:
        self.looks += 1
        await self.gate.wait()
        if isinstance(self.view, Exception):
            raise self.view
        return View(list(self.view))

    async def run(self, call: Call = CALL) -> Any:
        return await self.nodes.run(self.nodes.node_of(call.keys), call)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_nodes_are_looked_up_at_first_use_once_for_all_who_wait(scene: Scene) -> None:
    scene.gate.clear()
    calls = [asyncio.create_task(scene.run()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    scene.gate.set()
    assert await asyncio.gather(*calls) == ["a key"] * 3
    assert await scene.run() == "a key"
    assert scene.looks == 1
    await scene.nodes.close()


async def test_where_nobody_answers_each_call_fails_and_the_next_look_comes_later(scene: Scene) -> None:
    scene.view = NotFound("does not answer")
    for _ in range(3):
        with pytest.raises(NotFound, match="does not answer"):
            await scene.run()
    assert scene.looks == 1
    scene.now, scene.view = scene.now + module.LOOK_PAUSE, [B] * 16384
    assert await scene.run() == "b key"
    await scene.nodes.close()


async def test_a_slot_that_no_node_serves_is_told(scene: Scene) -> None:
    scene.view[SLOT] = None
    with pytest.raises(NotFound, match="has no node for some of its slots"):
        await scene.run()
    assert await scene.run(OTHER) == "a other"
    await scene.nodes.close()


async def test_a_slot_that_moved_is_followed_and_remembered(scene: Scene) -> None:
    await scene.run()
    scene.now += 1
    scene.of[A].replies = [MovedError(f"{SLOT} b:2")]
    assert await scene.run() == "b key"
    assert scene.nodes.node_of(["key"]).connections is scene.of[B]
    await asyncio.sleep(0)
    assert scene.looks == 2
    await scene.nodes.close()


async def test_a_slot_that_is_moving_is_asked_for_once_and_not_remembered(scene: Scene) -> None:
    await scene.run()
    scene.of[A].replies = [AskError(f"{SLOT} b:2")]
    assert await scene.run() == "b key"
    assert scene.of[B].asked == [True]
    assert await scene.run() == "a key"
    await scene.nodes.close()


async def test_without_a_host_a_node_refers_to_its_own(scene: Scene) -> None:
    await scene.run()
    scene.of[A].replies = [AskError(f"{SLOT} :7")]
    assert await scene.run() == "a key"
    assert scene.of["a", 7].asked == [True]
    await scene.nodes.close()


async def test_nodes_that_refer_to_each_other_end(scene: Scene) -> None:
    await scene.run()
    scene.of[A].replies = [MovedError(f"{SLOT} a:1")] * 9
    with pytest.raises(NotFound, match="without end"):
        await scene.run()
    await scene.nodes.close()


async def test_of_many_scripts_only_those_that_are_referred_are_sent_again(scene: Scene) -> None:
    await scene.run()
    refusal, lost = TryAgainError("TRYAGAIN"), RedisConnectionError("lost")
    scene.of[A].replies = ["one", AskError(f"{SLOT} b:2"), refusal, AskError(f"{SLOT} c:3")]
    scene.nodes._node_at(C)
    scene.of[C].replies = [lost]
    node = scene.nodes.node_of(["key"])
    # Sent again at a, which refers them on.
    scene.of[A].replies += [AskError(f"{SLOT} b:2"), AskError(f"{SLOT} c:3")]
    assert await scene.nodes.run_all(node, [CALL] * 4) == ["one", "b key", refusal, lost]
    await scene.nodes.close()


async def test_before_nodes_are_known_many_scripts_find_theirs(scene: Scene) -> None:
    scene.view[SLOT] = None
    replies = await scene.nodes.run_all(scene.nodes.node_of(["key"]), [CALL, OTHER])
    assert isinstance(replies[0], NotFound)
    assert replies[1] == "a other"
    await scene.nodes.close()


async def test_a_failure_and_a_refresh_find_the_new_node(scene: Scene) -> None:
    await scene.run()
    scene.view = [B] * 16384
    scene.nodes.failed()
    assert await scene.run() == "a key"  # looked up a moment ago
    scene.now += module.LOOK_PAUSE
    scene.nodes.failed()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await scene.run() == "b key"
    scene.view = [C] * 16384
    await scene.nodes.refresh()
    assert scene.of[C].connects == 1
    assert await scene.run() == "c key"
    await scene.nodes.close()


async def test_a_node_that_is_no_longer_named_is_closed_later(scene: Scene) -> None:
    scene.view = [B] * 16384
    await scene.run()
    scene.view = [C] * 16384
    await scene.nodes.refresh()
    assert scene.of[B].closed == 0
    scene.now += module.UNNAMED_SECONDS + 1
    await scene.nodes.refresh()
    assert await scene.run() == "c key"
    assert (scene.of[B].closed, scene.of[A].closed) == (1, 0)
    assert set(scene.nodes._nodes) == {A, C}
    assert [node.name for node in scene.nodes.known()] == ["Redis Cluster node at c:3"]
    await scene.nodes.close()
    assert scene.of[C].closed == 1


async def test_which_nodes_serve_is_told(scene: Scene) -> None:
    assert scene.nodes.serving == "Redis Cluster, served by unknown"
    scene.view[SLOT] = B
    await scene.run()
    assert scene.nodes.serving == "Redis Cluster, served by a:1, b:2"
    await scene.nodes.close()
    behind = FollowedNodes(Deployment.parse("redis+sentinel://a/main"), Breaker)
    behind._view = View([C])
    assert behind.serving == "Redis at c:3, the primary main of Sentinel"


async def test_closing_ends_a_look(scene: Scene) -> None:
    scene.gate.clear()
    waiting = asyncio.create_task(scene.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await scene.nodes.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_node_is_found_by_what_it_is() -> None:
    assert len({Node("a", None, Breaker()), Node("a", None, Breaker())}) == 2  # type: ignore[arg-type]


def test_keys_on_their_way_are_told_by_the_refusal() -> None:
    assert is_moving(TryAgainError("TRYAGAIN Multiple keys request during rehashing of slot"))
    assert is_moving(ResponseError("Script attempted to access a non local key in a cluster node"))
    assert not is_moving(ResponseError("OOM"))
    assert not is_moving(None)
