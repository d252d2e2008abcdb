"""Limits, breakers and failures of scripts at several nodes, on fake ones."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError, TryAgainError

from pointsman_server.adapters.redis.bounded_scripts import BoundedScripts
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Call, Script
from pointsman_server.adapters.redis.discovery import NotFound
from pointsman_server.adapters.redis.nodes import Node

SCRIPT = Script.of("return 1")


class Unavailable(Exception):
    pass


class FakeNodes:
    """A key begins with the name of its node. ``replies`` by node: a value, an error, or None for none at all."""

    def __init__(self) -> None:
        self.nodes = {name: Node(f"Redis at {name}", None, Breaker(threshold=2)) for name in "ab"}  # type: ignore[arg-type]
        self.replies: dict[str, Any] = {"a": "ok", "b": "ok"}
        self.ran: list[tuple[str, int]] = []
        self.failures = 0
        self.refreshed: Exception | None = None

    def node_of(self, keys: Sequence[str]) -> Node:
        return self.nodes[keys[0][0]]

    @property
    def serving(self) -> str:
        return ""

    def known(self) -> Collection[Node]:
        return self.nodes.values()

    async def run(self, node: Node, call: Call) -> Any:
        (reply,) = await self.run_all(node, [call])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def run_all(self, node: Node, calls: Sequence[Call]) -> list[Any]:
        name = node.name[-1]
        self.ran.append((name, len(calls)))
        if self.replies[name] is None:
            await asyncio.sleep(3600)
        return [self.replies[name]] * len(calls)

    def failed(self) -> None:
        self.failures += 1

    async def refresh(self) -> None:
        if self.refreshed:
            raise self.refreshed

    async def close(self) -> None:
        """There is nothing to close."""


class Scene:
    def __init__(self) -> None:
        self.failures = 0
        self.scripts = BoundedScripts("redis+cluster://h", Unavailable, timeout=5.0, failed=self._fail)
        self.nodes = FakeNodes()
        self.scripts.nodes = self.nodes

    def _fail(self) -> None:
        self.failures += 1

    async def run_all(self, *keys: str, guarded: bool = True) -> list[Any]:
        return await self.scripts.run_all([Call(SCRIPT, (), [key]) for key in keys], guarded=guarded)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_replies_are_in_the_order_of_the_calls_and_each_node_is_asked_once(scene: Scene) -> None:
    scene.nodes.replies = {"a": "from a", "b": "from b"}
    assert await scene.run_all("a1", "b1", "a2") == ["from a", "from b", "from a"]
    assert sorted(scene.nodes.ran) == [("a", 2), ("b", 1)]
    assert await scene.run_all() == []


async def test_a_node_that_fails_or_hangs_does_not_fail_what_others_answer(scene: Scene) -> None:
    scene.scripts._timeout = 0.02
    for reply in (None, RedisConnectionError("lost")):
        scene.nodes.replies["b"] = reply
        first, second = await scene.run_all("a1", "b1")
        assert first == "ok"
        assert isinstance(second, Unavailable)
        assert str(second) == "Redis at b does not answer"
    assert (scene.failures, scene.nodes.failures) == (2, 2)


async def test_an_open_breaker_keeps_guarded_scripts_from_its_node_alone(scene: Scene) -> None:
    scene.nodes.replies["b"] = RedisConnectionError("lost")
    for _ in range(2):
        await scene.run_all("a1", "b1")
    scene.nodes.ran.clear()
    first, second = await scene.run_all("a1", "b1")
    assert (first, str(second)) == ("ok", "Redis at b failed a moment ago")
    with pytest.raises(Unavailable, match="failed a moment ago"):
        await scene.scripts.run(SCRIPT, (), ["b1"])
    assert scene.nodes.ran == [("a", 1)]
    scene.nodes.replies["b"] = "ok"
    assert await scene.run_all("b1", guarded=False) == ["ok"]
    assert await scene.scripts.run(SCRIPT, (), ["b1"]) == "ok"


async def test_one_refusal_of_many_is_that_of_its_script(scene: Scene) -> None:
    refusal = ResponseError("OOM")
    scene.nodes.replies["a"] = refusal
    replies = await scene.run_all("a1", "a2", "b1")
    assert [isinstance(reply, Unavailable) for reply in replies] == [True, True, False]
    assert replies[0].__cause__ is refusal


async def test_a_slot_that_moves_is_no_failure_of_its_node(scene: Scene) -> None:
    scene.nodes.replies["a"] = TryAgainError("TRYAGAIN")
    for _ in range(3):
        (reply,) = await scene.run_all("a1")
        assert str(reply) == "Redis at a is moving a slot to another node"
    assert (scene.failures, scene.nodes.nodes["a"].breaker.is_open) == (0, False)


async def test_a_refusal_need_not_count_for_the_breaker(scene: Scene) -> None:
    scene.nodes.replies["a"] = ResponseError("OOM")
    for _ in range(3):
        with pytest.raises(Unavailable, match="is full"):
            await scene.scripts.run(SCRIPT, (), ["a1"], counts_refusals=False)
    assert not scene.nodes.nodes["a"].breaker.is_open


async def test_a_refresh_says_what_is_wrong_with_the_whole(scene: Scene) -> None:
    await scene.scripts.refresh()
    scene.nodes.refreshed = NotFound("knows no primary named x")
    with pytest.raises(Unavailable, match=r"^Redis Cluster at h:6379 knows no primary named x$"):
        await scene.scripts.refresh()
