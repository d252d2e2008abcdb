"""The cache scripts on a real Redis with foreign data in its entries, against a short model.

Every script is compared with the model field by field. Then the adapter uses the entries; it must not raise, nor answer
a value that we did not write.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import redis
from hypothesis import strategies as st

from pointsman_server.adapters.redis import scripts
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.domain.codec import route_to_message
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.store import Clock
from tests.support.changes import make_change

EPOCH = "5f0c3a52-6f0b-4b7c-9a53-0d4f3c9d2a10"
KEY = RouteKey("acme", "pay", "prod", "v1")
OURS = f"pointsman:{EPOCH[:8]}:{KEY}".encode()
CLOCK = b"pointsman:clock"
LARGEST = 2**63 - 1
# Longer than any run.
TTL = 600_000

REVISIONS = st.one_of(st.integers(0, 9), st.sampled_from((2**53, 2**53 + 1, LARGEST - 1, LARGEST)))
GOOD = make_change(3).after
assert GOOD is not None
GOOD_VALUE = route_to_message(GOOD).SerializeToString()
VALUES = st.one_of(st.just(b""), st.just(GOOD_VALUE), st.binary(max_size=40))
OWNERS = st.one_of(st.sampled_from((b"t", b"u", b"")), st.binary(max_size=6))
KEYS = st.one_of(st.just(OURS), st.just(OURS), st.just(b"k\0\r\n*1 {x}"), st.binary(min_size=1, max_size=9))
GARBAGE = st.one_of(
    st.binary(max_size=24),
    st.sampled_from((b"9" * 20, b"9" * 19, b"9" * 5000, b"-" + b"0" * 19, b"nan", b"0x" + b"1" * 18, b"0" * 20)),
)
FIELDS = st.one_of(st.sampled_from((b"r", b"v", b"l", b"p:", b"p:t", b"p")), st.binary(max_size=4))
CLOCK_FIELDS = st.sampled_from((b"epoch", EPOCH.encode(), b""))
STEPS = st.one_of(
    st.tuples(st.just("get"), OWNERS),
    st.tuples(st.just("fill"), OWNERS, REVISIONS, VALUES),
    st.tuples(st.just("mark"), OWNERS),
    st.tuples(st.just("settle"), OWNERS, REVISIONS, VALUES),
    st.tuples(st.just("consume"), REVISIONS, VALUES),
    st.tuples(st.just("invalidate"), REVISIONS),
    st.tuples(st.just("publish_clock"), REVISIONS),
    st.tuples(st.just("spoil"), FIELDS, GARBAGE),
    st.tuples(st.just("spoil_clock"), CLOCK_FIELDS, GARBAGE),
    st.tuples(st.just("persist")),
    st.tuples(st.just("retype"), st.sampled_from(("string", "list", "set", "zset", "stream"))),
    st.tuples(st.just("retype_clock"), st.sampled_from(("string", "list"))),
)
INPUTS = st.tuples(KEYS, st.lists(STEPS, min_size=1, max_size=14))


def padded(revision: int) -> bytes:
    return b"%020d" % revision


def is_revision(value: bytes | None) -> bool:
    return value is not None and len(value) == 20 and value.isdigit() and int(value) <= LARGEST


@dataclass(slots=True)
class Model:
    """One entry and the clock, as the scripts must leave them. None: a key of another type.

    ``expires``: whether the entry has a time to live, as all of ours have.
    """

    entry: dict[bytes, bytes] | None = field(default_factory=dict)
    expires: bool = True
    clock: dict[bytes, bytes] | None = field(default_factory=dict)

    def value(self) -> tuple[bytes, bytes] | None:
        """Return the revision and the value, if both are valid."""
        held = self.entry or {}
        revision, value = held.get(b"r"), held.get(b"v")
        return (revision, value) if is_revision(revision) and revision is not None and value is not None else None

    def marked(self) -> bool:
        return any(name.startswith(b"p:") for name in self.entry or {})

    def cleared(self) -> dict[bytes, bytes]:
        """Return the entry. Scripts delete an entry of another type, or without a time to live, when they read it."""
        if self.entry is None or not self.expires:
            self.entry, self.expires = {}, True
        return self.entry

    def store(self, revision: bytes, value: bytes) -> None:
        self.cleared().update({b"r": revision, b"v": value})

    def get(self, owner: bytes) -> list[bytes]:
        entry = self.cleared()
        foreign = (self.clock or {}).get(b"epoch", EPOCH.encode()) != EPOCH.encode()
        if self.marked() or foreign:
            return [b"B", b""]
        held = self.value()
        if held:
            return list(held)
        if b"l" in entry:
            return [b"B", b""]
        entry[b"l"] = owner
        return [b"L", b""]

    def fill(self, owner: bytes, revision: int, value: bytes) -> None:
        entry, held, new = self.cleared(), self.value(), padded(revision)
        if self.marked():
            return
        if (held and held[0] < new) or (not held and entry.get(b"l") == owner):
            self.store(new, value)
            entry.pop(b"l", None)

    def mark(self, owner: bytes) -> bytes:
        self.expires = True
        entry = self.cleared()
        entry.pop(b"l", None)
        entry[b"p:" + owner] = b""
        highest = (self.clock or {}).get(EPOCH.encode())
        return highest if highest is not None and is_revision(highest) else b""

    def settle(self, owner: bytes, revision: int, value: bytes) -> None:
        self.publish_clock(revision)
        new = padded(revision)
        own = (self.entry or {}).pop(b"p:" + owner, None) is not None
        entry = self.cleared()
        held = self.value()
        if held and held[0] >= new:
            return
        for name in (b"r", b"v", b"l"):
            entry.pop(name, None)
        if own:
            self.store(new, value)

    def consume(self, revision: int, value: bytes) -> None:
        entry, held = self.cleared(), self.value()
        if held and held[0] < padded(revision):
            self.store(padded(revision), value)
        elif not held:
            entry.pop(b"l", None)

    def invalidate(self, revision: int) -> None:
        entry, held = self.cleared(), self.value()
        if held[0] < padded(revision) if held else b"l" in entry:
            for name in (b"r", b"v", b"l"):
                entry.pop(name, None)

    def publish_clock(self, revision: int) -> bytes:
        self.clock = {} if self.clock is None else self.clock
        self.clock[b"epoch"] = EPOCH.encode()
        highest = self.clock.get(EPOCH.encode())
        if highest is None or not is_revision(highest) or highest < padded(revision):
            highest = self.clock[EPOCH.encode()] = padded(revision)
        return highest


class Rig:
    """Redis, the model, and the adapter."""

    _TYPES: ClassVar[dict[str, tuple[bytes, ...]]] = {
        "string": (b"SET", b"x"),
        "list": (b"RPUSH", b"x"),
        "set": (b"SADD", b"x"),
        "zset": (b"ZADD", b"1", b"x"),
        "stream": (b"XADD", b"*", b"x", b"y"),
    }

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = redis.Redis.from_url(url)
        self._loop = asyncio.new_event_loop()
        self._told: list[tuple[str, int]] = []
        self._cache = RedisCache(
            url, timeout=10, epoch=lambda: EPOCH, witness=lambda *told: self._told.append(told), failed=self._failed
        )
        names = ("GET", "FILL", "MARK", "SETTLE", "CONSUME", "INVALIDATE", "PUBLISH_CLOCK")
        self._scripts = {name.lower(): self._redis.register_script(getattr(scripts, name)) for name in names}

    def close(self) -> None:
        self._loop.run_until_complete(self._cache.close())
        self._loop.close()
        self._redis.close()

    @staticmethod
    def _failed() -> None:
        raise AssertionError("the adapter counts a failure: a script has failed")

    def check(self, case: tuple[bytes, Sequence[tuple[Any, ...]]]) -> None:
        """Run the steps in Redis and in the model, then use the adapter."""
        key, steps = case
        self._redis.delete(key, OURS, CLOCK)
        model = Model()
        for step in steps:
            self._take(key, model, *step)
        self._loop.run_until_complete(self._use())

    def _take(self, key: bytes, model: Model, name: str, *arguments: Any) -> None:
        before, given = model.value(), getattr(self, f"_{name}", None)
        if given:
            given(key, model, *arguments)
        else:
            answer = self._run(key, name, arguments)
            wanted = getattr(model, name)(*arguments)
            assert wanted is None or answer == wanted, f"{name} answers {answer!r} instead of {wanted!r}"
            after = model.value()
            assert not before or not after or after[0] >= before[0], "the fence goes back"
        if model.entry is not None:
            assert self._redis.hgetall(key) == model.entry, f"{name} leaves another entry"
        if model.clock is not None:
            assert self._redis.hgetall(CLOCK) == model.clock, f"{name} leaves another clock"

    def _run(self, key: bytes, name: str, arguments: tuple[Any, ...]) -> Any:
        clock: list[Any] = [CLOCK, EPOCH]
        if name == "publish_clock":
            return self._scripts[name](args=[*clock, padded(arguments[0])])
        if name == "invalidate":
            return self._scripts[name](keys=[key], args=[padded(arguments[0])])
        if name in ("get", "mark"):
            given = [arguments[0], TTL, *clock]
        else:
            owner, revision, value = (b"", *arguments)[-3:]
            given = [owner, padded(revision), value, TTL]
            given += [*clock, padded(revision)] if name == "settle" else []
        return self._scripts[name](keys=[key], args=given)

    # Foreign writes.

    def _spoil(self, key: bytes, model: Model, name: bytes, garbage: bytes) -> None:
        if model.entry is not None:
            self._redis.hset(key, name, garbage)
            if not model.entry:
                self._redis.pexpire(key, TTL)
                model.expires = True
            model.entry[name] = garbage

    def _persist(self, key: bytes, model: Model) -> None:
        self._redis.persist(key)
        model.expires = not model.entry

    def _spoil_clock(self, _key: bytes, model: Model, name: bytes, garbage: bytes) -> None:
        if model.clock is not None:
            self._redis.hset(CLOCK, name, garbage)
            model.clock[name] = garbage

    def _retype(self, key: bytes, model: Model, kind: str) -> None:
        self._retyped(key, kind)
        model.entry = None

    def _retype_clock(self, _key: bytes, model: Model, kind: str) -> None:
        self._retyped(CLOCK, kind)
        model.clock = None

    def _retyped(self, key: bytes, kind: str) -> None:
        command, *rest = self._TYPES[kind]
        self._redis.delete(key)
        cast("Any", self._redis).execute_command(command, key, *rest)

    async def _use(self) -> None:
        """Use every operation of the adapter: none raises, and only our values are answered."""
        self._told.clear()
        change = make_change(5)
        await self._answered("a")
        await self._cache.mark([KEY], "w")
        await self._cache.settle([Snapshot(KEY, change.after, 5, EPOCH)], "w")
        await self._answered("b")
        await self._cache.consume([Snapshot(KEY, None, 6, EPOCH)])
        await self._cache.invalidate([KEY], [6], EPOCH)
        await self._cache.fill([Snapshot(KEY, None, 7, EPOCH)], "b")
        await self._cache.publish_clock(Clock(EPOCH, 8))
        found = await self._answered("c")
        assert found is None or found.as_of >= 5, "older than what was settled"
        assert all(epoch == EPOCH and 0 <= revision <= LARGEST for epoch, revision in self._told), self._told
        assert self._told[-1][1] >= 8

    async def _answered(self, owner: str) -> Snapshot | None:
        (lookup,) = await self._cache.get([KEY], owner)
        found = lookup.snapshot
        assert found is None or (found.key == KEY and 0 <= found.as_of <= LARGEST)
        assert found is None or found.route is None or found.route.key == KEY
        return found


@contextmanager
def rig(url: str) -> Iterator[Rig]:
    """Make a rig on an empty Redis database."""
    made = Rig(url)
    try:
        yield made
    finally:
        made.close()
