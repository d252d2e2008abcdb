"""``ports.RouteCache`` on Redis."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

from google.protobuf.message import DecodeError

from pointsman_server.adapters.redis import scripts
from pointsman_server.adapters.redis.bounded_scripts import BoundedScripts
from pointsman_server.adapters.redis.breaker import Breaker
from pointsman_server.adapters.redis.connections import Argument, Call, Script
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.adapters.redis.names import KeyNames
from pointsman_server.adapters.redis.nodes import is_moving
from pointsman_server.domain.codec import value_from_bytes, value_to_bytes
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot
from pointsman_server.ports.cache import NOTHING, CacheUnavailable, Held, Lookup
from pointsman_server.ports.store import Clock

JITTER = 0.1
# A large write is sent in parts, so that no other command waits for more than about a millisecond; and it may take
# longer than a read: this many timeouts.
PART = 500
LARGE_WRITE_TIMEOUTS = 20
T = TypeVar("T")
LEASED, BUSY = b"L", b"B"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Times to live in seconds. A lease outlives every load, and a mark every commit."""

    value: float = 300.0
    absence: float = 30.0
    lease: float = 10.0
    mark: float = 10.0


class RedisCache:
    """Runs the protocol of ``scripts``; keys are ``<prefix>:<first 8 of the epoch>:<route key>``,
    on Redis Cluster ``<prefix>:{<part>}:<first 8 of the epoch>:<route key>``.

    **Epochs.** After a restore of the store revisions begin again at a lower one, so values of the old epoch would
    fence out every new write. Four rules keep the epochs apart:

    - The epoch is part of the name of every key. Keys of another epoch are never read, and expire.
    - ``<prefix>:clock`` names the current epoch. A server that has another one, perhaps because it cannot reach
      PostgreSQL, misses without a lease; then the store tells it the epoch, or is unavailable. Every write sets that
      name before it is answered, as does every server each second. So an entry of an old epoch never hides an answered
      write of a new one, whatever epoch a server has. If Redis loses the clock, the names of the keys still separate
      the epochs, and a server that reaches PostgreSQL learns the epoch within a second.
    - A writer learns the epoch from its own transaction, which locks the clock. If it marked its keys under another
      one, settling does not find the mark, as when Redis lost it: the key is dropped, and its lease with it, so a value
      that was read before the commit cannot be filled in after it.
    - A snapshot has its epoch, and one of another epoch is not stored: a read from before the restore, filled in after
      it, would have a higher revision than any new one.

    The clock also holds the highest revision of each epoch. A write reads it when it marks, before its commit, and
    raises it when it settles, before its answer. So a store that lost an answered write is detected before it gives out
    the same revision again, also by servers that never saw the first one.

    **Redis Cluster.** Routes are in ``names.PARTS`` parts, each in one slot with a clock of its own: a key and the
    epoch that it is read by are at one node. The clock of the first part has the highest revision of all parts, so
    a write that has other parts alone reads and raises that one beside them.

    While the epoch is not known every key misses without a lease, and writes are not sent.

    A read fails after ``timeout`` seconds, and at once while the breaker is open. Writes are always tried: other
    servers that reach Redis would go on answering a value that was not replaced.
    """

    def __init__(
        self,
        where: str | Deployment,
        *,
        prefix: str = "pointsman",
        timeout: float = 0.05,
        lifetimes: Lifetimes = Lifetimes(),
        breaker: Callable[[], Breaker] = Breaker,
        failed: Callable[[], None] = lambda: None,
        epoch: Callable[[], str] = lambda: "no-epoch",
        witness: Callable[[str, int], None] = lambda _epoch, _revision: None,
    ) -> None:
        """``epoch`` returns the store's epoch, empty while unknown.

        ``witness`` is called with an epoch and the highest revision that Redis has of it; ``failed`` for each failure.
        """
        self._scripts = BoundedScripts(where, CacheUnavailable, timeout=timeout, breaker=breaker, failed=failed)
        self._names = KeyNames(prefix, clustered=self._scripts.clustered)
        self._lifetimes = lifetimes
        self._epoch = epoch
        self._witness = witness
        self._get = self._script(scripts.GET, 2)
        self._peek = self._script(scripts.PEEK)
        self._fill, self._consume = Script.of(scripts.FILL), Script.of(scripts.CONSUME)
        self._invalidate = Script.of(scripts.INVALIDATE)
        self._mark, self._mark_held = self._script(scripts.MARK), self._script(scripts.MARK_HELD)
        self._settle, self._drop = self._script(scripts.SETTLE), self._script(scripts.DROP)
        self._publish_clock = self._script(scripts.PUBLISH_CLOCK)
        self._check, self._forget = Script.of(scripts.CHECK), Script.of(scripts.FORGET)

    @property
    def breaker_is_open(self) -> bool:
        """Whether a node is not asked for the moment, because it failed several times in a row."""
        return any(node.breaker.is_open for node in self._scripts.nodes.known())

    @property
    def serving(self) -> str:
        """Which Redis serve, in words; empty where it is the one that the settings name."""
        return self._scripts.nodes.serving

    async def get(self, keys: Sequence[RouteKey], owner: str) -> list[Lookup]:
        epoch = self._epoch()
        if not epoch:
            return [Lookup()] * len(keys)
        parts = self._names.split(keys)
        calls = []
        for head, positions in parts:
            clock = f"{head}clock"
            names = _names(head, epoch, keys, positions)
            args = (owner, _ms(self._lifetimes.lease), clock, epoch)
            calls.append(self._call(self._get, args, names, f"{clock}:none", clock))
        replies = await self._scripts.run_all(calls, guarded=True)
        found = [Lookup()] * len(keys)
        if self._epoch() != epoch:
            return found
        for (_, positions), fields in zip(parts, replies, strict=True):
            if not isinstance(fields, Exception):
                for position, first, value in zip(positions, fields[::2], fields[1::2], strict=True):
                    found[position] = _lookup(keys[position], epoch, first, value)
        return found

    async def peek(self, key: RouteKey) -> Held:
        epoch = self._epoch()
        if not epoch:
            raise CacheUnavailable("the epoch of the store is not known")
        head = self._names.head_of(key)
        clock, names = f"{head}clock", _names(head, epoch, [key], [0])
        (reply,) = await self._scripts.run_all([self._call(self._peek, (clock, epoch), names, clock)], guarded=True)
        if isinstance(reply, Exception):
            raise reply
        other, *found = reply
        if other:
            raise CacheUnavailable("Redis has another epoch than this server")
        return self._held(key, epoch, *found) if found else Held()

    def _held(self, key: RouteKey, epoch: str, first: bytes, value: bytes, left: int, leased: int, marked: int) -> Held:
        snapshot = _lookup(key, epoch, first, value).snapshot if first else None
        age = None
        if snapshot and not marked:
            age = max(0.0, (self._ttl(snapshot) - left) / 1000)
        return Held(snapshot, age, bool(marked), bool(leased))

    async def fill(self, snapshots: Sequence[Snapshot], owner: str) -> None:
        await self._scripts.run_all(self._writes(self._fill, snapshots, owner), guarded=True)

    async def mark(self, keys: Sequence[RouteKey], owner: str, held: Sequence[RouteKey] = ()) -> None:
        epoch = self._epoch()
        if not epoch:
            return
        calls = self._marks_of_held(held, owner, epoch) if held else []
        for head, positions in self._names.split(keys):
            clock, names = f"{head}clock", _names(head, epoch, keys, positions)
            calls.append(self._call(self._mark, self._mark_args(owner, clock, epoch), names, clock))
        calls += self._witness_calls(calls, self._mark, lambda clock: self._mark_args(owner, clock, epoch))
        self._report_highest(epoch, await self._write(calls, _timeouts(len(held))))

    async def settle(
        self, snapshots: Sequence[Snapshot], owner: str, dropped: Mapping[RouteKey, int] = NOTHING
    ) -> None:
        epoch = self._epoch()
        calls = self._writes(self._settle, snapshots, owner, settled=True)
        if not calls:
            return
        highest = max(snapshot.as_of for snapshot in snapshots if snapshot.epoch in ("", epoch))
        if dropped:
            calls += self._drops(list(dropped), list(dropped.values()), Clock(epoch, highest), owner)
        calls += self._witness_calls(calls, self._publish_clock, lambda clock: (clock, epoch, _revision(highest)))
        await self._write(calls, _timeouts(len(dropped)))

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        for reply in await self._write(self._writes(self._consume, snapshots, "")):
            if isinstance(reply, Exception):
                raise reply

    async def invalidate(self, keys: Sequence[RouteKey], revisions: Sequence[int], epoch: str) -> None:
        # No server reads keys of another epoch.
        if not epoch or self._epoch() != epoch:
            return
        calls = [
            Call(self._invalidate, [_revision(revisions[each]) for each in part], _names(head, epoch, keys, part))
            for head, positions in self._names.split(keys)
            for part in _parts(positions)
        ]
        for reply in await self._write(calls):
            if isinstance(reply, Exception):
                raise reply

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        epoch = self._epoch()
        calls = self._marks_of_held(keys, owner, epoch) if epoch else []
        if calls:
            calls += self._witness_calls(calls, self._mark, lambda clock: self._mark_args(owner, clock, epoch))
            self._report_highest(epoch, await self._write(calls, _timeouts(len(keys))))

    def _marks_of_held(self, keys: Sequence[RouteKey], owner: str, epoch: str) -> list[Call]:
        calls = []
        for head, positions in self._names.split(keys):
            clock = f"{head}clock"
            for names in _parts(_names(head, epoch, keys, positions)):
                args = (*self._mark_args(owner, clock, epoch), "\n".join(names))
                calls.append(self._call(self._mark_held, args, (), *names, clock))
        return calls

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        if len(keys) != len(revisions):
            raise ValueError("the revisions are fewer or more than the keys")
        # No server reads keys of another epoch.
        if self._epoch() != clock.epoch:
            return
        calls = self._drops(keys, revisions, clock, owner)
        if calls:
            highest = _revision(clock.revision)
            calls += self._witness_calls(calls, self._publish_clock, lambda name: (name, clock.epoch, highest))
            await self._write(calls, _timeouts(len(keys)))

    def _drops(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> list[Call]:
        highest, calls = _revision(clock.revision), []
        for head, positions in self._names.split(keys):
            of_part = _names(head, clock.epoch, keys, positions)
            for names, part in zip(_parts(of_part), _parts(positions), strict=True):
                texts = "".join([_revision(revisions[position]) for position in part])
                args = (owner, f"{head}clock", clock.epoch, highest, "\n".join(names), texts)
                calls.append(self._call(self._drop, args, (), *names, f"{head}clock"))
        return calls

    async def publish_clock(self, clock: Clock) -> None:
        """Send the store's clock to Redis, and report the highest revision that Redis has. Failures are ignored."""
        args = (clock.epoch, _revision(clock.revision))
        clocks = [f"{head}clock" for head in self._names.heads]
        replies = await self._scripts.run_all(
            [self._call(self._publish_clock, (name, *args), (), name) for name in clocks]
        )
        self._report_highest(clock.epoch, replies)

    async def ping(self) -> None:
        await self._scripts.refresh()
        # One part at each node. The others are on some node, or else on none, which is the last.
        heads = {self._scripts.nodes.node_of([head]): head for head in self._names.heads}
        for head in heads.values():
            # A refusal is left out of the breaker: what refuses the check may still serve reads, as a full Redis does.
            keys = [f"{head}health:{part}" for part in "ab"]
            await self._scripts.run(self._check, (), keys, guarded=False, counts_refusals=False)

    async def close(self) -> None:
        await self._scripts.close()

    def _script(self, text: str, undeclared: int = 1) -> Script:
        """Make a script that takes so many names of further keys from its arguments.

        Redis Cluster must be told them: there they are the last keys, which are removed before the script begins.
        """
        return Script.of("table.remove(KEYS)\n" * undeclared + text if self._names.clustered else text)

    def _call(self, script: Script, args: Sequence[Argument], keys: Sequence[str], *undeclared: str) -> Call:
        return Call(script, args, [*keys, *undeclared] if self._names.clustered else keys)

    def _mark_args(self, owner: str, clock: str, epoch: str) -> tuple[Argument, ...]:
        return owner, _ms(self._lifetimes.mark), clock, epoch

    def _witness_calls(
        self, calls: Sequence[Call], script: Script, args: Callable[[str], Sequence[Argument]]
    ) -> list[Call]:
        """Make the call for the clock of the first part, which has the highest revision of all, if ``calls`` have none.

        Without it a revision that another part has seen could be given out again.
        """
        clock = f"{self._names.heads[0]}clock"
        if not self._names.clustered or any(clock in call.keys for call in calls):
            return []
        return [Call(script, args(clock), [clock])]

    def _writes(
        self, script: Script, snapshots: Sequence[Snapshot], owner: str, *, settled: bool = False
    ) -> list[Call]:
        epoch = self._epoch()
        ours = [snapshot for snapshot in snapshots if snapshot.epoch in ("", epoch)]
        if not epoch or not ours:
            return []
        keys, calls = [snapshot.key for snapshot in ours], []
        for head, positions in self._names.split(keys):
            args: list[Argument] = [owner]
            for position in positions:
                snapshot = ours[position]
                args += [_revision(snapshot.as_of), _encode(snapshot.value), self._ttl(snapshot)]
            clock = [f"{head}clock"] if settled else []
            if settled:
                args += [*clock, epoch, _revision(max(ours[position].as_of for position in positions))]
            calls.append(self._call(script, args, _names(head, epoch, keys, positions), *clock))
        return calls

    async def _write(self, calls: Sequence[Call], timeouts: float = 1) -> list[Any]:
        """Run scripts that write. Keys that are on their way to another node, one by one, are dropped, one by one."""
        replies = await self._scripts.run_all(calls, timeouts=timeouts)
        for position, reply in enumerate(replies):
            if isinstance(reply, Exception) and is_moving(reply.__cause__):
                names = [name for name in calls[position].keys if not name.endswith(":clock")]
                dropped = await self._scripts.run_all([Call(self._forget, (), [name]) for name in names])
                replies[position] = next((each for each in dropped if isinstance(each, Exception)), None)
        return replies

    def _report_highest(self, epoch: str, replies: Sequence[object]) -> None:
        # Empty if Redis has none.
        known = [int(highest) for highest in replies if isinstance(highest, bytes) and highest]
        if known:
            self._witness(epoch, max(known))

    def _ttl(self, snapshot: Snapshot) -> int:
        seconds = self._lifetimes.value if snapshot.value else self._lifetimes.absence
        # Jittered, so that keys that were filled together do not expire together; the same again, so that ``peek`` can
        # tell the age from what is left.
        share = crc32(f"{snapshot.key} {snapshot.as_of}".encode()) / 2**32
        return _ms(seconds * (1 - share * JITTER))


def _names(head: str, epoch: str, keys: Sequence[RouteKey], positions: Iterable[int]) -> list[str]:
    head = f"{head}{epoch[:8]}:"
    # The same as ``str(key)``, in half the time.
    # That of a family ends with a slash.
    return [f"{head}{'/'.join(keys[position])}" for position in positions]


def _timeouts(keys: int) -> int:
    # The transaction of a write waits meanwhile, and with it every other one.
    return LARGE_WRITE_TIMEOUTS if keys > PART else 1


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + PART] for start in range(0, len(items), PART)]


def _lookup(key: RouteKey, epoch: str, first: bytes, value: bytes) -> Lookup:
    if first == BUSY:
        return Lookup()
    if first == LEASED:
        return Lookup(leased=True)
    try:
        return Lookup(_decode(key, epoch, int(first), value), encoded=value)
    except (ValueError, DecodeError):
        return Lookup()  # not written by us: read the store


def _encode(value: Route | Family | None) -> bytes:
    return value_to_bytes(value) if value else b""


def _decode(key: RouteKey, epoch: str, as_of: int, value: bytes) -> Snapshot:
    if not value:
        return Snapshot(key, None, as_of, epoch)
    decoded = value_from_bytes(key, value)
    if not 0 < decoded.revision <= as_of:
        raise ValueError("a value of another revision")
    return Snapshot(key, decoded, as_of, epoch)


def _revision(revision: int) -> str:
    return f"{revision:020d}"


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
