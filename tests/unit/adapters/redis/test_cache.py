"""What the cache sends to Redis, and how it takes replies and failures. The protocol is tested on Redis by contract."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.cache import PART, Lifetimes, RedisCache
from pointsman_server.adapters.redis.connections import Call
from pointsman_server.adapters.redis.nodes import Node, OneNode
from pointsman_server.domain.codec import route_to_message
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.cache import CacheUnavailable, Lookup
from pointsman_server.ports.store import Clock
from tests.support.changes import make_change
from tests.support.fakes import ManualClock

EPOCH = "0123456789abcdef"
KEY, OTHER = RouteKey("acme", "pay", "prod", "v1"), RouteKey("acme", "pay", "prod", "v2")
NAME, OTHER_NAME = "pointsman:01234567:acme/pay/prod/v1", "pointsman:01234567:acme/pay/prod/v2"
CLOCK = "pointsman:clock"
LIFETIMES = Lifetimes(value=300.0, absence=30.0, lease=7.0, mark=8.0)


def padded(revision: int) -> str:
    return f"{revision:020d}"


def present(revision: int) -> Snapshot:
    return Snapshot(KEY, make_change(revision).after, revision, EPOCH)


def encoded(snapshot: Snapshot) -> bytes:
    assert snapshot.route
    return route_to_message(snapshot.route).SerializeToString()


class FakeConnections:
    """Records what is run; replies with ``reply``, or raises it, ``delay`` seconds later."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, list[Any], list[str]]] = []
        self.reply: Any = None
        self.delay = 0.0

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def run(self, call: Call) -> Any:
        self.sent.append((call.script, list(call.args), list(call.keys)))
        if self.delay:
            await asyncio.sleep(self.delay)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def put(connections: FakeConnections, cache: RedisCache) -> Node:
    """Let a cache use the connections."""
    nodes = cache._scripts.nodes
    assert isinstance(nodes, OneNode)
    nodes.node.connections = connections  # type: ignore[assignment]
    return nodes.node


class Scene:
    """A cache on fake connections, and what it reports."""

    def __init__(self, **options: Any) -> None:
        self.epoch = EPOCH
        self.witnessed: list[tuple[str, int]] = []
        self.failures = 0
        self.cache = RedisCache(
            "redis://redis.internal:7000/0",
            **{
                "timeout": 5.0,
                "lifetimes": LIFETIMES,
                "epoch": lambda: self.epoch,
                "witness": lambda *known: self.witnessed.append(known),
                "failed": self.fail,
                **options,
            },
        )
        self.connections = FakeConnections()
        self.node = put(self.connections, self.cache)

    def fail(self) -> None:
        self.failures += 1

    @property
    def sent(self) -> list[tuple[Any, list[Any], list[str]]]:
        return self.connections.sent


@pytest.fixture
def scene() -> Scene:
    return Scene()


# What is sent


async def test_get_sends_owner_lease_clock_and_epoch(scene: Scene) -> None:
    scene.connections.reply = [b"L", b"", b"B", b""]
    assert await scene.cache.get([KEY, OTHER], "reader") == [Lookup(leased=True), Lookup()]
    assert scene.sent == [(scene.cache._get, ["reader", 7000, CLOCK, EPOCH], [NAME, OTHER_NAME])]


async def test_fill_sends_owner_revision_value_and_lifetime(scene: Scene) -> None:
    await scene.cache.fill([present(5), Snapshot(OTHER, None, 6, EPOCH)], "reader")
    ((script, args, keys),) = scene.sent
    assert (script, keys) == (scene.cache._fill, [NAME, OTHER_NAME])
    assert [*args[:3], *args[4:6]] == ["reader", padded(5), encoded(present(5)), padded(6), b""]
    assert 270_000 <= args[3] <= 300_000
    assert 27_000 <= args[6] <= 30_000
    assert len(args) == 7


async def test_mark_sends_its_lifetime_and_reports_the_highest_revision(scene: Scene) -> None:
    scene.connections.reply = padded(9).encode()
    await scene.cache.mark([KEY], "writer")
    assert scene.sent == [(scene.cache._mark, ["writer", 8000, CLOCK, EPOCH], [NAME])]
    assert scene.witnessed == [(EPOCH, 9)]


async def test_settle_sends_the_clock_with_the_highest_revision(scene: Scene) -> None:
    await scene.cache.settle([present(9), Snapshot(OTHER, None, 6, EPOCH)], "writer")
    ((script, args, keys),) = scene.sent
    assert (script, keys, args[0]) == (scene.cache._settle, [NAME, OTHER_NAME], "writer")
    assert args[7:] == [CLOCK, EPOCH, padded(9)]


async def test_consume_has_no_owner_and_no_clock(scene: Scene) -> None:
    await scene.cache.consume([present(5)])
    ((script, args, keys),) = scene.sent
    assert (script, keys) == (scene.cache._consume, [NAME])
    assert args[:3] == ["", padded(5), encoded(present(5))]
    assert len(args) == 4


async def test_invalidate_sends_revisions_alone_in_parts(scene: Scene) -> None:
    keys = [KEY._replace(service=f"s{number}") for number in range(PART)] + [KEY.family_key]
    revisions = list(range(1, PART + 2))
    await scene.cache.invalidate(keys, revisions, EPOCH)
    names, texts = [f"pointsman:01234567:{'/'.join(key)}" for key in keys], list(map(padded, revisions))
    assert scene.sent == [
        (scene.cache._invalidate, texts[part], names[part]) for part in (slice(PART), slice(PART, None))
    ]
    assert names[-1].endswith("/pay/prod/")


async def test_a_large_write_marks_in_parts_and_reports_once(scene: Scene) -> None:
    scene.connections.reply = padded(9).encode()
    keys = [KEY._replace(service=f"s{number}") for number in range(PART + 1)]
    await scene.cache.mark_held(keys, "writer")
    names = [f"pointsman:01234567:{key}" for key in keys]
    head = ["writer", 8000, CLOCK, EPOCH]
    parts = ["\n".join(names[:PART]), names[PART]]
    assert scene.sent == [(scene.cache._mark_held, [*head, part], []) for part in parts]
    assert scene.witnessed == [(EPOCH, 9)]


async def test_a_large_write_of_nothing_sends_and_reports_nothing(scene: Scene) -> None:
    await scene.cache.mark_held([], "writer")
    assert (scene.sent, scene.witnessed) == ([], [])


async def test_drop_sends_keys_and_revisions_in_parts(scene: Scene) -> None:
    keys = [KEY._replace(service=f"s{number}") for number in range(PART + 1)]
    revisions = list(range(1, PART + 2))
    await scene.cache.drop_older(keys, revisions, Clock(EPOCH, 700), "writer")
    names, texts = [f"pointsman:01234567:{key}" for key in keys], list(map(padded, revisions))
    head = ["writer", CLOCK, EPOCH, padded(700)]
    assert scene.sent == [
        (scene.cache._drop, [*head, "\n".join(names[part]), "".join(texts[part])], [])
        for part in (slice(PART), slice(PART, None))
    ]


async def test_drop_requires_a_revision_for_every_key(scene: Scene) -> None:
    keys = [KEY._replace(service=f"s{number}") for number in range(PART + 1)]
    with pytest.raises(ValueError, match="fewer or more"):
        await scene.cache.drop_older(keys, [1] * PART, Clock(EPOCH, 7), "writer")


async def test_publish_clock_sends_it_and_reports_the_highest_revision(scene: Scene) -> None:
    scene.connections.reply = padded(9).encode()
    await scene.cache.publish_clock(Clock("another", 7))
    assert scene.sent == [(scene.cache._publish_clock, [CLOCK, "another", padded(7)], [])]
    assert scene.witnessed == [("another", 9)]


@pytest.mark.parametrize("reply", [b"", None])
async def test_without_a_highest_revision_nothing_is_reported(scene: Scene, reply: bytes | None) -> None:
    scene.connections.reply = reply
    await scene.cache.mark([KEY], "writer")
    await scene.cache.mark_held([KEY], "writer")
    await scene.cache.publish_clock(Clock(EPOCH, 7))
    assert (len(scene.sent), scene.witnessed) == (3, [])


async def test_ping_checks_two_keys_of_different_slots(scene: Scene) -> None:
    await scene.cache.ping()
    assert scene.sent == [(scene.cache._check, [], ["pointsman:health:a", "pointsman:health:b"])]


async def test_the_prefix_begins_every_name() -> None:
    scene = Scene(prefix="mine")
    scene.connections.reply = [b"B", b""]
    await scene.cache.get([KEY], "reader")
    await scene.cache.ping()
    assert scene.sent[0][1:] == (["reader", 7000, "mine:clock", EPOCH], ["mine:01234567:acme/pay/prod/v1"])
    assert scene.sent[1][2] == ["mine:health:a", "mine:health:b"]


async def test_a_lifetime_is_at_least_a_millisecond() -> None:
    scene = Scene(lifetimes=Lifetimes(value=0.0, absence=0.0, lease=0.0, mark=0.0))
    scene.connections.reply = [b"B", b""]
    await scene.cache.get([KEY], "reader")
    await scene.cache.fill([present(5)], "reader")
    assert scene.sent[0][1][1] == scene.sent[1][1][3] == 1


# What is left out


async def test_without_an_epoch_nothing_is_sent(scene: Scene) -> None:
    scene.epoch = ""
    assert await scene.cache.get([KEY, OTHER], "reader") == [Lookup()] * 2
    await scene.cache.fill([Snapshot(KEY, None, 5)], "reader")
    await scene.cache.mark([KEY], "writer")
    await scene.cache.settle([Snapshot(KEY, None, 5)], "writer")
    await scene.cache.consume([Snapshot(KEY, None, 5)])
    await scene.cache.mark_held([KEY], "writer")
    await scene.cache.invalidate([KEY], [5], "")
    await scene.cache.invalidate([KEY], [5], EPOCH)
    assert scene.sent == []


async def test_snapshots_of_another_epoch_are_left_out(scene: Scene) -> None:
    await scene.cache.settle([Snapshot(KEY, None, 9, "another"), Snapshot(OTHER, None, 6)], "writer")
    await scene.cache.fill([Snapshot(KEY, None, 9, "another")], "reader")
    await scene.cache.drop_older([KEY], [9], Clock("another", 9), "writer")
    await scene.cache.invalidate([KEY], [9], "another")
    ((_, args, keys),) = scene.sent
    assert keys == [OTHER_NAME]
    assert [args[1], args[-1]] == [padded(6)] * 2


async def test_a_reply_from_before_a_new_epoch_is_discarded(scene: Scene) -> None:
    scene.connections.reply = [padded(5).encode(), b""]
    run = scene.connections.run

    async def change_epoch(call: Call) -> Any:
        reply = await run(call)
        scene.epoch = "another"
        return reply

    scene.connections.run = change_epoch  # type: ignore[method-assign]
    assert await scene.cache.get([KEY, OTHER], "reader") == [Lookup()] * 2


# Replies


async def test_a_hit_has_its_epoch_its_key_and_its_route_as_stored(scene: Scene) -> None:
    wanted = present(5)
    scene.connections.reply = [padded(7).encode(), encoded(wanted), padded(8).encode(), b""]
    first, second = await scene.cache.get([KEY, OTHER], "reader")
    assert first == Lookup(Snapshot(KEY, wanted.route, 7))
    assert first.encoded == encoded(wanted)
    assert second == Lookup(Snapshot(OTHER, None, 8))
    assert first.snapshot
    assert second.snapshot
    assert first.snapshot.epoch == second.snapshot.epoch == EPOCH


async def test_a_route_of_another_key_or_revision_is_a_miss(scene: Scene) -> None:
    value = encoded(present(5))
    scene.connections.reply = [padded(5).encode(), value, padded(4).encode(), value]
    assert await scene.cache.get([OTHER, KEY], "reader") == [Lookup()] * 2


async def test_a_route_without_a_revision_is_a_miss(scene: Scene) -> None:
    message = route_to_message(make_change(5).after)  # type: ignore[arg-type]
    message.revision = 0
    scene.connections.reply = [padded(5).encode(), message.SerializeToString()]
    assert await scene.cache.get([KEY], "reader") == [Lookup()]


# Failures


async def test_a_failure_is_a_miss_for_every_key_and_counts(scene: Scene) -> None:
    scene.connections.reply = RedisConnectionError("lost")
    assert await scene.cache.get([KEY, OTHER], "reader") == [Lookup()] * 2
    await scene.cache.fill([present(5)], "reader")
    await scene.cache.mark([KEY], "writer")
    await scene.cache.settle([present(5)], "writer")
    await scene.cache.publish_clock(Clock(EPOCH, 7))
    await scene.cache.mark_held([KEY], "writer")
    await scene.cache.drop_older([KEY], [5], Clock(EPOCH, 7), "writer")
    assert (scene.failures, scene.witnessed) == (7, [])
    with pytest.raises(CacheUnavailable, match=r"^Redis at redis\.internal:7000 does not answer$"):
        await scene.cache.consume([present(5)])
    assert scene.failures == 8


@pytest.mark.parametrize(
    ("error", "opens"), [(RedisConnectionError("lost"), True), (ResponseError("OOM full"), False)], ids=["lost", "full"]
)
async def test_a_refused_check_does_not_open_the_breaker(error: Exception, opens: bool) -> None:
    scene = Scene(breaker=lambda: Breaker(threshold=1))
    scene.connections.reply = error
    with pytest.raises(CacheUnavailable) as caught:
        await scene.cache.ping()
    assert caught.value.__cause__ is error
    assert (scene.node.breaker.is_open, scene.failures) == (opens, 1)


async def test_a_refused_read_opens_the_breaker() -> None:
    scene = Scene(breaker=lambda: Breaker(threshold=1))
    scene.connections.reply = ResponseError("OOM full")
    assert await scene.cache.get([KEY], "reader") == [Lookup()]
    assert scene.node.breaker.is_open


async def test_an_open_breaker_lets_writes_through_but_neither_reads_nor_fills() -> None:
    scene = Scene(breaker=lambda: Breaker(threshold=1, pause=1e9, now=ManualClock()))
    scene.node.breaker.failed()
    assert await scene.cache.get([KEY, OTHER], "reader") == [Lookup()] * 2
    await scene.cache.fill([present(5)], "reader")
    assert scene.sent == []
    await scene.cache.settle([present(5)], "writer")
    assert len(scene.sent) == 1
    assert not scene.node.breaker.is_open


async def test_a_read_ends_after_the_timeout_and_a_large_write_later() -> None:
    scene = Scene(timeout=0.02)
    scene.connections.delay, scene.connections.reply = 0.1, b""
    assert await scene.cache.get([KEY], "reader") == [Lookup()]
    await scene.cache.mark([KEY], "writer")
    await scene.cache.settle([present(5)], "writer")
    await scene.cache.publish_clock(Clock(EPOCH, 5))
    assert scene.failures == 4
    # A single write announces and drops a family, and its transaction waits for that.
    await scene.cache.mark_held([KEY], "writer")
    await scene.cache.drop_older([KEY], [5], Clock(EPOCH, 5), "writer")
    assert scene.failures == 6
    keys = [KEY._replace(version=f"v{number}") for number in range(PART + 1)]
    await scene.cache.mark_held(keys, "writer")
    await scene.cache.drop_older(keys, [5] * len(keys), Clock(EPOCH, 5), "writer")
    assert scene.failures == 6
    scene.connections.delay = 3600
    await scene.cache.mark_held(keys, "writer")
    await scene.cache.drop_older(keys, [5] * len(keys), Clock(EPOCH, 5), "writer")
    assert scene.failures == 8


# Defaults


def test_the_defaults() -> None:
    cache = RedisCache("redis://")
    assert cache._scripts.where == "Redis at localhost:6379"
    assert (cache._names.heads, cache._scripts._timeout, cache._lifetimes) == (["pointsman:"], 0.05, Lifetimes())
    assert cache._epoch() == "no-epoch"
    assert not put(FakeConnections(), cache).breaker.is_open


async def test_nobody_has_to_listen() -> None:
    cache = RedisCache("redis://redis.internal")
    connections = FakeConnections()
    put(connections, cache)
    connections.reply = padded(7).encode()
    await cache.mark([KEY], "writer")
    connections.reply = RedisConnectionError("lost")
    assert await cache.get([KEY], "reader") == [Lookup()]
    assert cache._scripts.where == "Redis at redis.internal:6379"
    assert len(connections.sent) == 2


async def test_close_closes_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    cache = RedisCache("redis://redis.internal")

    async def close() -> None:
        closed.append("connections")

    monkeypatch.setattr(cache._scripts.nodes.node_of(()).connections, "close", close)
    await cache.close()
    assert closed == ["connections"]
