"""The short way of Resolve and BatchResolve, for keys that the local cache answers: bytes in, bytes out.

The long way (``interceptors.stages``, then ``RouteServicer``) parses, checks, looks up and encodes. For a key that the
local cache holds most of that is done: it was valid when it was asked for or written first, the cache knows it by its
bytes, and keeps the route as bytes too. What may have become another is asked here for every call: who calls, whether
they may and how often, whether the server drains, and whether what is held is fresh and new enough. Whatever is not as
usual goes the long way, which words the refusal: this one has no errors.
"""

import time
from collections.abc import Callable
from functools import lru_cache

from google.protobuf.message import DecodeError

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_from_bytes, rest_from_bytes
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Snapshot
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import ACTIVE, INACTIVE, CacheHit, NearestCache
from pointsman_server.rpc import convert
from pointsman_server.rpc.fastpath import wire
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.guards import Guards, Metadata
from pointsman_server.runtime.bounded_dict import remember

MOST_TERMS = 10_000
LONGEST_TERMS = 128

AskMetadata = Callable[[], Metadata | None]


class Terms:
    """What a request asks of its answers, besides its keys; ``usual`` says whether the local cache may answer it."""

    __slots__ = ("epoch", "min_revision", "usual")

    def __init__(self, encoded: bytes) -> None:
        # Behind the keys both requests have the same fields.
        request = pb.ResolveRequest.FromString(encoded)
        self.min_revision = request.min_revision
        self.epoch = request.epoch
        minimal = request.consistency in (pb.CONSISTENCY_UNSPECIFIED, pb.CONSISTENCY_MINIMIZE_LATENCY)
        self.usual = minimal and not request.HasField("key") and request.min_revision >= 0 and len(request.epoch) <= 36


class WarmAnswers:
    """Answers by the bytes of keys, from ``local``; ``epoch`` gives that of the store.

    ``tally`` counts them, as the stages would have.
    """

    def __init__(
        self, local: NearestCache, guards: Guards, *, epoch: Callable[[], str], tally: FastPathCounters
    ) -> None:
        self._find = local.find
        self._let_in = guards.let_in
        self._epoch = epoch
        self._tally = tally
        self._terms: dict[bytes, Terms] = {b"": Terms(b"")}

    def resolve(self, request: bytes, metadata: AskMetadata) -> bytes | None:
        """Answer a Resolve, or give None: then it goes the long way. ``metadata`` is asked for only where it counts."""
        begun = time.perf_counter()
        key, rest = wire.cut(request)
        terms = self._terms.get(rest) or self._learn_terms(rest)
        if not terms.usual or (terms.min_revision and not self._is_of_this(terms.epoch)):
            return None
        found = self._find(key, terms.min_revision)
        if found is None or found[1] != ACTIVE:
            return None
        route, _, as_of, age, common = found
        scope = common.scope
        if not self._let_in(metadata, (scope.tenant,), (scope,)):
            return None
        # The key is field 1 of the request as of the route.
        named = len(request) - len(rest)
        provenance, of_now = _provenance(as_of, common.epoch), wire.age(int(age * 1000))
        response = b"".join(
            (
                wire.head(1, named + len(route)),
                request[:named],
                route,
                wire.head(2, len(provenance) + len(of_now)),
                provenance,
                of_now,
            )
        )
        self._tally.resolved(begun)
        return response

    def batch_resolve(
        self, request: bytes, metadata: AskMetadata, admit: Callable[[int], bool] = lambda _routes: True
    ) -> bytes | None:
        """Answer a BatchResolve, if every key of it can be answered here and ``admit`` takes so many."""
        begun = time.perf_counter()
        keys, rest = wire.split(request)
        terms = self._terms.get(rest) or self._learn_terms(rest)
        if not 1 <= len(keys) <= convert.LARGEST_PAGE or not terms.usual:
            return None
        if terms.min_revision and not self._is_of_this(terms.epoch):
            return None
        results: list[bytes] = []
        tenants: list[str] = []
        scopes: dict[Scope, None] = {}
        outcomes = [0, 0, 0]
        for encoded in keys:
            found = self._find(encoded, terms.min_revision)
            if found is None:
                return None
            scope = found[4].scope
            results.append(_result(encoded, found))
            tenants.append(scope.tenant)
            scopes[scope] = None
            outcomes[found[1]] += 1
        if not admit(len(keys)) or not self._let_in(metadata, tenants, scopes):
            return None
        self._tally.batch_resolved(outcomes, begun)
        return b"".join(results)

    def _is_of_this(self, epoch: str) -> bool:
        """Say whether a revision of ``epoch`` means the same here."""
        return not epoch or epoch == self._epoch()

    def _learn_terms(self, encoded: bytes) -> Terms:
        try:
            terms = Terms(encoded) if len(encoded) <= LONGEST_TERMS else UNUSUAL
        except DecodeError:
            return UNUSUAL
        if terms is not UNUSUAL:
            remember(self._terms, encoded, terms, MOST_TERMS)
        return terms


def _result(encoded: bytes, found: CacheHit) -> bytes:
    """Encode what a BatchResolve says of a key."""
    rest, state, as_of, age, common = found
    if state == ACTIVE:
        key, provenance = wire.field(1, encoded), _provenance(as_of, common.epoch) + wire.age(int(age * 1000))
        route = wire.head(2, len(key) + len(rest)) + key + rest
        return wire.field(1, key + route + wire.field(4, provenance))
    named = key_from_bytes(encoded)
    inactive = rest_from_bytes(named, rest) if state == INACTIVE else None
    answer = Answer(Snapshot(named, inactive, as_of, common.epoch), Source.LOCAL, age)
    return wire.field(1, convert.batch_result(named, answer).SerializeToString())


@lru_cache(4096)
def _provenance(as_of: int, epoch: str) -> bytes:
    """Encode the provenance without the age; most keys were read as of few revisions, or the feed confirmed them."""
    revision = b"\x18" + wire.varint(as_of) if as_of else b""
    return LOCAL + revision + (wire.field(4, epoch.encode()) if epoch else b"")


LOCAL = pb.Provenance(source=pb.Provenance.SOURCE_LOCAL).SerializeToString()
UNUSUAL = Terms(pb.ResolveRequest(consistency=pb.CONSISTENCY_FULLY_CONSISTENT).SerializeToString())
