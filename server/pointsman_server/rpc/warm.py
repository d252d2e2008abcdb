"""The short way of Resolve and BatchResolve, for keys that the local cache answers: bytes in, bytes out.

The long way (``interceptors.stages``, then ``RouteServicer``) parses, checks, looks up and encodes. For a key that it
answered once most of that has the same outcome for ever: the same bytes are the same valid key, in the same scope. What
may have become another is asked here for every call: who calls, whether they may and how often, whether the server
drains, and whether the local cache still holds the answer, fresh and new enough. Whatever is not as usual goes the long
way, which words the refusal: this one has no errors.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.encoding import key_from_message, route_to_message
from pointsman_server.identity import Scope
from pointsman_server.remembering import remember
from pointsman_server.resolving import Answer, Held, NearestCache, Source
from pointsman_server.routes import RouteKey
from pointsman_server.rpc import convert, wire
from pointsman_server.rpc.guards import Guards, Metadata
from pointsman_server.telemetry.tally import OUTCOMES, Tally

MOST_KEYS = 100_000
MOST_TERMS = 10_000
LONGEST_TERMS = 128

ACTIVE, INACTIVE, ABSENT = map(OUTCOMES.index, ("active", "inactive", "absent"))

AskMetadata = Callable[[], Metadata | None]


class Known:
    """A key that was answered once, and what of its next answers is the same as long as ``held`` is held.

    ``route`` is its route with its length before it, empty where that is not active; ``outcome`` is a place in
    ``tally.OUTCOMES``. ``as_of`` is the revision in ``provenance``, which lacks the age alone.
    """

    __slots__ = ("as_of", "field", "held", "key", "outcome", "provenance", "route", "scope")

    key: RouteKey

    def __init__(self, field: bytes, scope: Scope, held: Held) -> None:
        self.field = field
        self.scope = scope
        self.take(held)

    def take(self, held: Held) -> None:
        """Encode the route of ``held``, and ask by its key from now on: the same object is found sooner."""
        self.key = held.snapshot.key
        route = held.snapshot.route
        self.outcome = ABSENT if route is None else ACTIVE if route.active else INACTIVE
        self.route = wire.delimited(route_to_message(route).SerializeToString()) if route and route.active else b""
        self.held = held
        self.be_as_of(held.snapshot.as_of)

    def be_as_of(self, revision: int) -> None:
        """Encode the provenance as of ``revision``."""
        local, epoch = pb.Provenance.SOURCE_LOCAL, self.held.snapshot.epoch
        self.as_of = revision
        self.provenance = pb.Provenance(source=local, as_of_revision=revision, epoch=epoch).SerializeToString()

    def result(self, age: float) -> bytes:
        """Encode what a BatchResolve says of the key."""
        if self.route:
            provenance = wire.delimited(self.provenance + wire.age(age))
            return wire.field(1, self.field + b"\x12" + self.route + b"\x22" + provenance)
        answer = Answer(replace(self.held.snapshot, as_of=self.as_of), Source.LOCAL, age)
        return wire.field(1, convert.batch_result(self.key, answer).SerializeToString())


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
        self,
        local: NearestCache,
        guards: Guards,
        *,
        epoch: Callable[[], str],
        tally: Tally,
        most: int = MOST_KEYS,
    ) -> None:
        self._local = local
        self._let_in = guards.let_in
        self._epoch = epoch
        self._tally = tally
        self._most = most
        self._keys: dict[bytes, Known] = {}
        self._scopes: dict[Scope, Scope] = {}
        self._terms: dict[bytes, Terms] = {b"": Terms(b"")}

    def learn(self, message: Any) -> None:
        """Remember a key, as its message, that the long way has answered."""
        encoded = message.SerializeToString(deterministic=True)
        if encoded in self._keys:
            return
        key = key_from_message(message)
        found = self._local.look(key)
        if found is None:
            return
        scope = Scope(key.tenant, key.env)
        # One object for all keys of a scope, of which there are few.
        scope = self._scopes.setdefault(scope, scope) if len(self._scopes) < self._most else scope
        remember(self._keys, encoded, Known(wire.field(1, encoded), scope, found[0]), self._most)

    def resolve(self, request: bytes, metadata: AskMetadata) -> bytes | None:
        """Answer a Resolve, or give None: then it goes the long way. ``metadata`` is asked for only where it counts."""
        begun = time.perf_counter()
        keys, rest = wire.split(request)
        known = self._keys.get(keys[0]) if len(keys) == 1 else None
        terms = self._terms.get(rest) or self._learn_terms(rest)
        if known is None or not terms.usual:
            return None
        age = self._age_of(known, terms)
        if age is None or not known.route or not self._let_in(metadata, (known.scope.tenant,), (known.scope,)):
            return None
        response = b"\x0a" + known.route + b"\x12" + wire.delimited(known.provenance + wire.age(age))
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
        results: list[bytes] = []
        tenants: list[str] = []
        scopes: dict[Scope, None] = {}
        outcomes = [0, 0, 0]
        for encoded in keys:
            known = self._keys.get(encoded)
            age = self._age_of(known, terms) if known else None
            if known is None or age is None:
                return None
            results.append(known.result(age))
            tenants.append(known.scope.tenant)
            scopes[known.scope] = None
            outcomes[known.outcome] += 1
        if not admit(len(keys)) or not self._let_in(metadata, tenants, scopes):
            return None
        self._tally.batch_resolved(outcomes, begun)
        return b"".join(results)

    def _age_of(self, known: Known, terms: Terms) -> float | None:
        """Look whether the local cache answers ``known``, and give how old that is; None where it does not."""
        found = self._local.look(known.key)
        if found is None:
            return None
        held, age = found
        if held is not known.held:
            known.take(held)
        if terms.min_revision and not self._is_new_enough(known, held, terms):
            return None
        return age

    def _is_new_enough(self, known: Known, held: Held, terms: Terms) -> bool:
        if terms.epoch and terms.epoch != self._epoch():
            return False
        if known.as_of < terms.min_revision:
            # The feed has told every change since, and there was none of this key.
            fed = self._local.fed if held.tracked else 0
            if fed < terms.min_revision:
                return False
            known.be_as_of(fed)
        return True

    def _learn_terms(self, encoded: bytes) -> Terms:
        try:
            terms = Terms(encoded) if len(encoded) <= LONGEST_TERMS else UNUSUAL
        except DecodeError:
            return UNUSUAL
        if terms is not UNUSUAL:
            remember(self._terms, encoded, terms, MOST_TERMS)
        return terms


UNUSUAL = Terms(pb.ResolveRequest(consistency=pb.CONSISTENCY_FULLY_CONSISTENT).SerializeToString())
