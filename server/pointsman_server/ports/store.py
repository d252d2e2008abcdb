"""What the core needs of the outside, as Protocols. These docstrings are law: every adapter obeys them, and one
contract suite (``tests/contract``) runs against every implementation, the fakes of the unit tests included.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from pointsman_server.domain.api_keys import ApiKey, Minted
from pointsman_server.domain.identity import Grant, Identity
from pointsman_server.domain.routes import Change, Route, RouteKey, Snapshot, Wanted


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the database is: ``revision`` is the number of its last committed change, ``epoch`` names its history."""

    epoch: str
    revision: int


@dataclass(frozen=True, slots=True)
class RouteQuery:
    """Which routes to list: those that match every part that is not empty, after ``after`` in key order."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    active: bool | None = None
    after: RouteKey | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ChangeQuery:
    """Which changes to list: those that match every part that is not empty; revisions are exclusive bounds."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    version: str = ""
    actor: str = ""
    after_revision: int = 0
    before_revision: int = 0
    newest_first: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Intent:
    """Who mutates, why, and under which ``request_id``; ``fingerprint`` is a digest of the whole request."""

    actor: str
    reason: str = ""
    request_id: str = ""
    fingerprint: bytes = b""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of a mutation: the route after it (None after a delete), true as of ``revision``."""

    route: Route | None
    revision: int


@dataclass(frozen=True, slots=True)
class MutationScope:
    """What a mutation asks to see before it is decided: the route of ``key``, and with ``family`` its siblings too.

    Siblings are the other versions of the same tenant, service and env. The intent's ``request_id``, where it has one,
    is looked up in the tenant of ``key``.
    """

    key: RouteKey
    intent: Intent
    family: bool = False


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """The outcome of a mutation, kept for replays of its ``request_id`` in the tenant."""

    tenant: str
    request_id: str
    fingerprint: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LockedState:
    """What a transaction sees once it alone may write: all of it is true as of ``clock``, and stays so to its end.

    ``moment`` is the time of the database, in UTC, and not before any that was given out earlier. ``routes`` are those
    that were asked for and exist, each once. ``remembered`` says for each mutation, in the order asked, what its
    request_id is known for; the outcome's route has the key that was asked for.
    """

    clock: Clock
    moment: datetime
    routes: Sequence[Route]
    remembered: Sequence[StoredOutcome | None]


class RouteTransaction(Protocol):
    """A group of mutations. Everything it records becomes visible at once, or never."""

    async def lock(self, asked: Sequence[MutationScope]) -> LockedState:
        """Wait until no other transaction writes, and read what is asked for. Call it once, and first.

        From here to the end this transaction owns the clock, so **the order of commits is the order of revisions, and
        there are no gaps**; and of two transactions the later sees everything that the earlier did.
        """

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        """Write history, the routes that it leads to, and the outcomes. Call it at most once.

        The revisions of ``changes`` follow the clock's one by one, in its epoch. A key may change several times: each
        change begins where the one before ended. Errors may also come at the end of the transaction.
        """


class Existing(StrEnum):
    """What an import does with a route that exists: change it, leave it, or refuse everything because of it."""

    UPDATE = "UPDATE"
    SKIP = "SKIP"
    REFUSE = "REFUSE"


@dataclass(frozen=True, slots=True)
class Imported:
    """The answer of an import. ``first`` and ``last`` are the revisions of its changes, 0 when there are none.

    Everything is as it shall be as of ``revision``.
    """

    created: int
    updated: int
    unchanged: int
    first: int
    last: int
    revision: int


@dataclass(frozen=True, slots=True)
class Merged:
    """What an import did: ``revisions`` has that of the last change of each route, in the order of the request.

    It is empty when ``imported`` was remembered under the intent's ``request_id``.
    """

    imported: Imported
    epoch: str
    revisions: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class LockedImport:
    """Where the clock is, and what was remembered under the intent's ``request_id`` meanwhile."""

    clock: Clock
    known: Merged | None


class ImportTransaction(Protocol):
    """One import. Everything in it becomes visible at once, or never."""

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        """Return what was remembered under the intent's ``request_id`` in the tenant.

        Raises RequestIdReused when that was of another fingerprint.
        """

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        """Hand the routes over, each key once. Nobody waits for this. Call it once."""

    async def lock(self, tenant: str, intent: Intent, existing: Existing) -> LockedImport:
        """Wait until no other transaction writes. From here on this one owns the clock.

        Raises RequestIdReused, RoutesExist when ``existing`` says so, and RevisionsMismatch. Call it once, after
        ``stage``.
        """

    async def merge(self) -> Merged:
        """Make what was staged so. Call it at most once, and last: this also commits.

        Each route that has to change gets the next revision, in their order, those that go out of service last; and
        one change: CREATED, UPDATED where the url or the labels differ, else ACTIVATED or DEACTIVATED. The outcome is
        remembered under the intent's ``request_id``, if it has one.
        """


class BulkStore(Protocol):
    """The store, for many routes at once. It raises what RouteStore does."""

    def begin_import(self) -> AbstractAsyncContextManager[ImportTransaction]:
        """Open a transaction: what was not merged is rolled back."""


class RouteStore(Protocol):
    """The truth: routes, their history, and the clock.

    Every method raises StoreUnavailable when the store cannot be reached or does not answer in time, and
    Overloaded when no connection comes free in time. After StoreUnavailable from the end of a transaction the
    outcome is unknown: it happened as a whole, or not at all.
    """

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        """Read all ``keys`` in one snapshot of the database: one result per key, in order.

        All have one ``as_of``, and the ``epoch`` that it counts in.
        """

    def begin(self) -> AbstractAsyncContextManager[RouteTransaction]:
        """Open a transaction: it commits when the block ends, and rolls back when the block raises."""

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        """Read routes in the order of their keys, compared by code point."""

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        """Read history in the order of revisions."""

    async def clock(self) -> Clock:
        """Read the clock."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a cache knows of a key.

    ``snapshot``: a hit, and ``encoded`` its route as protobuf, if the cache keeps it as that. Otherwise a miss; then
    ``leased`` says whether the asker alone may ``fill`` it.
    """

    snapshot: Snapshot | None = None
    leased: bool = False
    encoded: bytes = field(default=b"", compare=False, repr=False)


class RouteCache(Protocol):
    """The cache that servers share. For every key it obeys:

    - **fence**: a value is only ever replaced by one with a higher ``as_of``;
    - **lease**: an absent value is filled only by the holder of the key's lease, and any write, eviction or
      restart ends the lease: a load that began before them cannot be filled in after them;
    - **mark**: from before the commit of a write until after it, a key is neither answered nor filled.

    It may forget anything at any time. Unless said otherwise nothing here raises: a cache that cannot be reached
    in its time budget misses without a lease, and drops what it is told.
    """

    async def get(self, keys: Sequence[RouteKey], token: str) -> list[Lookup]:
        """Look up every key, in order; misses are leased to ``token`` where they can be."""

    async def fill(self, snapshots: Sequence[Snapshot], token: str) -> None:
        """Store what was loaded under the leases of ``token``."""

    async def mark(self, keys: Sequence[RouteKey], token: str) -> None:
        """Announce a write, before its commit. Marks expire by themselves if the writer dies."""

    async def settle(self, snapshots: Sequence[Snapshot], token: str) -> None:
        """Store what was written, after its commit, and take back the marks of ``token``.

        A mark that is gone means that the cache lost data in between: then the key is dropped instead.
        """

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        """Make sure that nothing older than each snapshot is answered. Never brings back an absent key.

        Raises CacheUnavailable when that cannot be assured now.
        """

    async def mark_held(self, keys: Sequence[RouteKey], token: str) -> None:
        """Announce a large write, before its commit: as ``mark``, but only keys that are held, or leased."""

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, token: str) -> None:
        """Forget each key, its lease too, unless it is held as of its revision or later; take back the marks.

        It comes after the commit. A load that began before it cannot be filled in any more, marked or not. ``clock``
        is where the store was at the commit.
        """

    async def ping(self) -> None:
        """Raise CacheUnavailable unless the cache answers."""


class CacheUnavailable(Exception):
    """The shared cache cannot be reached, or does not answer in time."""


@dataclass(frozen=True, slots=True)
class Taking:
    """What one call takes of the limit ``limit`` of ``subject``: ``debt`` of at most ``window``, in nanoseconds.

    ``limiting.Rate`` has both, and what they mean.
    """

    limit: str
    subject: str
    debt: int
    window: int


class SharedQuota(Protocol):
    """The rates that servers keep together. For every limit of every subject it obeys the law of ``limiting``:

    - one clock, of the quota itself, and one count for everybody who asks: never more than a window of debt at once;
    - a call takes from all of its limits, or from none;
    - a debt that time has paid is forgotten, and the quota may forget more: at worst a subject begins anew.
    """

    async def take(self, takings: Sequence[Taking]) -> None:
        """Take all. Raises RateLimited, for the limit with the longest wait, and QuotaUnavailable."""


class QuotaUnavailable(Exception):
    """The quota cannot be asked, or does not answer in time: nobody knows whether it took."""


class Leadership(Protocol):
    """The right to publish, held by at most one server that the store can see.

    Every method raises StoreUnavailable as soon as the right may be lost.
    """

    async def unpublished(self, limit: int, published: int = 0) -> list[Change]:
        """Record ``published``, and read the next changes after what is published, in order and without gaps."""

    async def published(self, revision: int) -> None:
        """Record that every change up to ``revision`` is surely on the broker. It never moves back.

        A crash of the store may take it back: then some of it is published again.
        """

    async def wait(self, seconds: float) -> None:
        """Wait until a change may have been committed, or for ``seconds``."""


@dataclass(frozen=True, slots=True)
class RelayState:
    """How far the relay is: the published revision, the last one, and how many seconds the oldest waits."""

    published: int
    revision: int
    oldest_seconds: float

    @property
    def lag(self) -> int:
        """How many changes wait."""
        return self.revision - self.published


class RelayLog(Protocol):
    """The history as an outbox."""

    def lead(self) -> AbstractAsyncContextManager[Leadership]:
        """Wait to become the leader; the block ends the leadership. Raises StoreUnavailable."""

    async def state(self) -> RelayState:
        """Read how far the relay is. Raises StoreUnavailable."""


class ChangePublisher(Protocol):
    """The way to the broker."""

    async def publish(self, changes: Sequence[Change]) -> int:
        """Publish in order; return how many, from the front, the broker has surely stored.

        Fewer than all means that the broker failed: nothing after them is on its way any more, so publishing them
        again keeps the order per key.
        """

    async def close(self) -> None:
        """Let go of the broker."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that is no change: where it lies, and why it was refused. Never its content."""

    topic: str
    partition: int
    offset: int
    problem: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Some messages in the order of their partitions."""

    changes: Sequence[Change]
    poison: Sequence[Poison] = ()


class ChangeSource(Protocol):
    """A member of a consumer group on the topic.

    A change may come twice, never out of order per key, never not at all.
    """

    async def receive(self, seconds: float) -> Delivery:
        """Wait up to ``seconds`` for messages. Raises BrokerUnavailable."""

    async def commit(self) -> None:
        """Record that everything received so far is done: it will not come again. Raises BrokerUnavailable."""

    async def rewind(self) -> None:
        """Receive again everything that was received since the last commit."""

    async def lag(self) -> int:
        """How many messages of the assigned partitions are not yet received."""

    async def close(self) -> None:
        """Leave the group."""


class ChangeStream(Protocol):
    """Every change that reaches the topic from the first ``receive`` on: all partitions, no group, no memory.

    A change may come twice, and late; what was published while the broker could not be reached may not come at all.
    """

    async def receive(self, seconds: float) -> Sequence[Change]:
        """Wait up to ``seconds`` for changes. Raises BrokerUnavailable."""

    async def close(self) -> None:
        """Let go of the broker."""


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or does not answer in time."""


@dataclass(frozen=True, slots=True)
class Span:
    """One epoch in the history: the revisions ``first`` to ``last``, without a gap."""

    epoch: str
    first: int
    last: int


class Lineage(Protocol):
    """Which epochs the history of the store consists of."""

    async def spans(self) -> list[Span]:
        """Read the epochs in the order of their revisions. Raises StoreUnavailable."""


class AuditLog(Protocol):
    """The append-only record of who changed what: exactly one row per epoch and revision, chained by hashes.

    ``auditing`` says how. However many append at once, and in whatever order, there is one chain per epoch.
    """

    async def append(self, changes: Sequence[Change]) -> None:
        """Add the changes that are not there yet, and extend the chain. Raises StoreUnavailable."""

    async def extend(self, span: Span) -> int:
        """Extend the chain over the rows that lie there, and return its last revision.

        That is one before the first revision of ``span`` as long as the first is missing. Raises StoreUnavailable.
        """


class CredentialVerifier(Protocol):
    """Tells who shows a credential: the issuer's tokens and our API keys have one each.

    It checks against what it holds in memory (``refreshing``) and keeps no event loop busy with I/O.
    """

    async def verify(self, credential: str) -> Identity:
        """Return who shows ``credential``. Raises Unauthenticated, and AccessUnavailable while nothing was read yet.

        When the credential names a key that is not known, this may wait for one renewal of what is known; floods of
        unknown names cause no more of them than one does.
        """

    @property
    def version(self) -> int:
        """Another number whenever something that was valid may be so no more: memories of older ones are void."""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A key to be made: who makes it, what it grants, and how long it lives; None is for ever."""

    name: str
    grants: tuple[Grant, ...]
    created_by: str
    lifetime: timedelta | None


class KeyNameTaken(Exception):
    """A living key has the name."""


class KeyNotFound(Exception):
    """No living key has the name or the id."""


class ApiKeyStore(Protocol):
    """All API keys. It keeps digests of secrets and never a secret.

    At most one key of a name is its current one: it lives, or no newer one took its place. Keys are ordered by name,
    those of one name by age. Every method raises StoreUnavailable and Overloaded as those of RouteStore do.
    """

    async def known(self) -> list[ApiKey]:
        """Read all living keys, and those that ended less than 30 days ago, so that callers can be told."""

    async def create(self, draft: KeyDraft, minted: Minted) -> ApiKey:
        """Add a key. Raises KeyNameTaken while another key of the name is neither expired nor revoked."""

    async def rotate(self, draft: KeyDraft, minted: Minted, overlap: timedelta) -> ApiKey:
        """Add a key in the place of the current one of the name, which ends after ``overlap`` if not before.

        The grants are those of the current key; the draft's do not count. Raises KeyNotFound when none lives.
        """

    async def revoke(self, name_or_id: str, by: str) -> list[ApiKey]:
        """End every living key of the name, or the one of the id, now and for ever.

        Raises KeyNotFound when none lives.
        """
