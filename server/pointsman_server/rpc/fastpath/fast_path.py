"""Resolve and BatchResolve from bytes to bytes, in one place for every transport.

The interceptor chain parses, checks, looks up and encodes. Here a request is cut into its key and the rest, and the
local cache is looked up once, by the bytes of the key. Then the call is answered or refused at once, waits for Redis or
PostgreSQL, or is declined: the chain serves it, with what was looked up. What may change between two calls is checked
for each of them: identity, permission, rate limits, drain, freshness and ``min_revision``.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import DecodeError

from pointsman.rules import KEY_PART
from pointsman.v1.route_pb2 import RouteKey as KeyMessage
from pointsman_server.domain.codec import key_from_bytes, key_from_message
from pointsman_server.domain.errors import Overloaded
from pointsman_server.domain.identity import Identity, Scope
from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import ABSENT, ACTIVE, FAMILY, REST, CacheHit, snapshot_of
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.read_counts import OFF, ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import convert, pages
from pointsman_server.rpc.fastpath import encoder, wire
from pointsman_server.rpc.fastpath.base import BasePath
from pointsman_server.rpc.fastpath.call_ends import CallContext, CallEnds
from pointsman_server.rpc.fastpath.declined import DECLINED, Declined, Outcome
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.misses import Misses
from pointsman_server.rpc.fastpath.select_path import SelectPath
from pointsman_server.rpc.fastpath.terms import Terms, TermsTable
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.telemetry.logs import verbosity

# What the encoding of a key has besides the letters: a tag and a length for each part.
FRAMING = 8


def admit_all(_routes: int) -> None:
    """Bound nothing."""


class FastPath(BasePath):
    """Serves requests from ``local`` and, beyond it, from ``resolver``. ``selects`` serves Select and BatchSelect.

    ``deadline`` in seconds is for callers that set none. See ``BasePath``.
    """

    METHOD = "Resolve"
    BATCH_METHOD = "BatchResolve"

    def __init__(
        self,
        local: LocalCache,
        resolver: Resolver,
        guards: Guards,
        ends: CallEnds,
        *,
        epoch: Callable[[], str],
        deadline: float,
        reads: ReadCounts = OFF,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        misses = Misses(resolver, guards.admission, ends, reads, deadline)
        super().__init__(local, misses, guards, ends, epoch=epoch, reads=reads, now=now)
        self.selects = SelectPath(local, misses, guards, ends, epoch=epoch, reads=reads, now=now)
        self._counters = ends.counters
        self._terms = TermsTable()
        self._known_terms = self._terms.get

    def resolve(self, request: bytes, context: CallContext) -> Outcome | Awaitable[bytes | Refusal]:
        """Serve a Resolve: return the response, or how it is refused, or decline, or what to await for either."""
        begun = time.perf_counter()
        key, rest = wire.cut(request)
        terms = self._known_terms(rest) or self._terms.decode(rest)
        min_revision = terms.min_revision
        if not terms.supported or (min_revision and not self._counts_in(terms.epoch)):
            return DECLINED
        if terms.from_store:
            return self._wait(key, terms, None, begun, context)
        hit = self._find(key, min_revision)
        if hit is None or hit[2] < min_revision:
            return self._wait(key, terms, hit, begun, context)
        record, state, as_of, age, entry = hit
        if state >= FAMILY:
            # A key without a version is invalid here.
            return DECLINED
        scope = entry.scope
        caller = self._let_in(context.invocation_metadata, (scope.tenant,), (scope,))
        if caller is None:
            return self._declined(min_revision, hit)
        if state != ACTIVE:
            return self._refuse(key, hit, caller, begun, context)
        # The key is field 1 of the request as of the route.
        key_field = request[: len(request) - len(rest)]
        response = encoder.resolve_response(key_field, record[REST:], encoder.LOCAL, as_of, entry.epoch, age)
        self._counters.resolved_locally(begun)
        # ``ReadCounts.read``, without a call for most reads.
        reads = self._reads
        reads.left -= 1
        if not reads.left or self._samples or verbosity.debug:
            self._note(key, caller, begun, context)
        return response

    def batch_resolve(self, request: bytes, context: CallContext, admit: Callable[[int], None] = admit_all) -> Outcome:
        """Serve a BatchResolve: return the response if the local cache holds every key, or a refusal, or decline.

        ``admit`` is called with the number of keys before the call is answered; its Overloaded refuses the call.
        """
        begun = time.perf_counter()
        keys, rest = wire.split(request)
        terms = self._known_terms(rest) or self._terms.decode(rest)
        min_revision = terms.min_revision
        if not terms.supported or terms.from_store or not 1 <= len(keys) <= pages.MAX_SIZE:
            return DECLINED
        if min_revision and not self._counts_in(terms.epoch):
            return DECLINED
        find = self._find
        found = [find(key, min_revision) for key in keys]
        hits = [hit for hit in found if hit is not None and hit[2] >= min_revision]
        if len(hits) < len(keys):
            return self._declined(min_revision, *found)
        results: list[bytes] = []
        tenants: list[str] = []
        scopes: dict[Scope, None] = {}
        # By state; a key without a version, which is that of a family, is invalid here.
        outcomes = [0, 0, 0, 0, 0]
        for key, hit in zip(keys, hits, strict=True):
            scope = hit[4].scope
            results.append(encoder.batch_result(key, hit))
            tenants.append(scope.tenant)
            scopes[scope] = None
            outcomes[hit[1]] += 1
        response = b"".join(results)
        small = len(response) <= convert.RESPONSE_BYTES and not any(outcomes[FAMILY:])
        caller = self._let_in(context.invocation_metadata, tenants, scopes) if small else None
        if caller is None:
            return self._declined(min_revision, *hits)
        try:
            admit(len(keys))
        except Overloaded as error:
            return self._refuse_batch(error, begun, context)
        self._counters.batch_resolved(outcomes[:FAMILY], begun)
        self._end_batch(_existing(keys, hits) if outcomes[ABSENT] else keys, caller, begun, context)
        return response

    def _refuse(
        self, encoded: bytes, hit: CacheHit, caller: Identity, begun: float, context: CallContext
    ) -> bytes | Refusal:
        """Refuse a Resolve of a key that the local cache holds as inactive or absent."""
        if hit[1] != ABSENT:
            self._reads.read(encoded, caller.subject)
        answer = Answer(snapshot_of(key_from_bytes(encoded), hit), Source.LOCAL, hit[3])
        self._counters.began("Resolve", "negative" if hit[1] == ABSENT else "hit")
        return self._ends.conclude(answer, begun, context)

    def _wait(
        self, encoded: bytes, terms: Terms, hit: CacheHit | None, begun: float, context: CallContext
    ) -> Awaitable[bytes | Refusal] | Declined:
        """Return what waits for a key that the local cache does not hold, or holds as of an older revision."""
        key = read_key(encoded)
        if key is None:
            return DECLINED
        caller = self._let_wait(key, terms, hit, context)
        if isinstance(caller, Declined):
            return caller
        return self._misses.resolve(key, terms, caller.subject, begun, context)


def _existing(keys: Sequence[bytes], hits: Sequence[CacheHit]) -> list[bytes]:
    return [key for key, hit in zip(keys, hits, strict=True) if hit[1] != ABSENT]


def read_key(encoded: bytes) -> RouteKey | None:
    """Read a key by the rules of ``route.proto``; None for one that breaks them or has other fields too."""
    try:
        key = key_from_message(KeyMessage.FromString(encoded))
    except DecodeError:
        return None
    if len(encoded) != FRAMING + sum(map(len, key)) or not all(map(KEY_PART.fullmatch, key)):
        return None
    return key
