"""Select and BatchSelect from bytes to bytes: the fast path of Resolve, for families.

A request is cut into the key of its family, the sticky key, and the rest. A family that the local cache holds is kept
ready to select from, and encoded, for as long as it holds the same record.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import DecodeError

from pointsman.rules import KEY_PART
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_from_bytes
from pointsman_server.domain.errors import Overloaded
from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import NO_FAMILY, CacheHit, snapshot_of
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.rpc import convert, pages, selections
from pointsman_server.rpc.fastpath import encoder, wire
from pointsman_server.rpc.fastpath.base import BasePath
from pointsman_server.rpc.fastpath.call_ends import CallContext, CallEnds
from pointsman_server.rpc.fastpath.declined import DECLINED, Declined, Outcome
from pointsman_server.rpc.fastpath.families import Chosen, ReadyFamilies, ReadyFamily
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.misses import Misses
from pointsman_server.rpc.fastpath.terms import SelectTerms, Terms, TermsTable
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.telemetry.logs import verbosity

# The proto bounds a sticky key to as many bytes.
LONGEST_STICKY_KEY = 256
# What the encoding of a family's key has besides the letters: a tag and a length for each part.
FRAMING = 6


class SelectPath(BasePath):
    """Serves requests from ``local`` and, beyond it, from ``misses``. See ``BasePath``."""

    METHOD = "Select"
    BATCH_METHOD = "BatchSelect"

    def __init__(
        self,
        local: LocalCache,
        misses: Misses,
        guards: Guards,
        ends: CallEnds,
        *,
        epoch: Callable[[], str],
        reads: ReadCounts,
        now: Callable[[], float],
    ) -> None:
        super().__init__(local, misses, guards, ends, epoch=epoch, reads=reads, now=now)
        self._families = ReadyFamilies()
        self._ready = self._families.known
        self._counters = ends.counters.selects
        self._terms = TermsTable(SelectTerms)
        self._known_terms = self._terms.get
        self._batch_terms = TermsTable()

    def select(self, request: bytes, context: CallContext) -> Outcome | Awaitable[bytes | Refusal]:
        """Serve a Select: return the response, or how it is refused, or decline, or what to await for either."""
        begun = time.perf_counter()
        family, sticky_key, rest = wire.cut_selection(request)
        terms = self._known_terms(rest) or self._terms.decode(rest)
        min_revision = terms.min_revision
        plain = sticky_key.isascii() and len(sticky_key) <= LONGEST_STICKY_KEY
        if not terms.supported or not (plain or _is_sticky_key(sticky_key)):
            return DECLINED
        if min_revision and not self._counts_in(terms.epoch):
            return DECLINED
        hit = None if terms.from_store else self._find(family, min_revision)
        if hit is None or hit[2] < min_revision:
            return self._wait(family, sticky_key, terms, hit, begun, context)
        record, _, as_of, age, entry = hit
        scope = entry.scope
        caller = self._let_in(context.invocation_metadata, (scope.tenant,), (scope,))
        if caller is None:
            return self._declined(min_revision, hit)
        # ``ReadyFamilies.of``, without a call for most selections.
        ready = self._ready(family)
        if ready is None or ready.record is not record:
            ready = self._families.add(family, hit)
        chosen = ready.choose(sticky_key)
        if chosen is None:
            return self._refuse(family, hit, begun, context)
        response = encoder.select_response(chosen, as_of, entry.epoch, age)
        self._counters.selected_locally(chosen.outcome, begun)
        # ``ReadCounts.read``, without a call for most reads.
        reads = self._reads
        reads.left -= 1
        if not reads.left or self._samples or verbosity.debug:
            self._note(chosen.key, caller, begun, context)
        return response

    def batch_select(self, request: bytes, context: CallContext, admit: Callable[[int], None]) -> Outcome:
        """Serve a BatchSelect: return the response if the local cache holds every family, or a refusal, or decline.

        ``admit`` is called with the number of selections before the call is answered; its Overloaded refuses the call.
        """
        begun = time.perf_counter()
        parts, rest = wire.split(request)
        terms = self._batch_terms.get(rest) or self._batch_terms.decode(rest)
        if not terms.supported or terms.from_store or not 1 <= len(parts) <= pages.MAX_SIZE:
            return DECLINED
        if terms.min_revision and not self._counts_in(terms.epoch):
            return DECLINED
        batch = _Batch(self._find, self._families.of, terms.min_revision)
        if not batch.look_up(parts):
            return self._declined(terms.min_revision, *batch.hits) if batch.hits else DECLINED
        batch.select()
        response = b"".join(batch.results)
        scopes = dict.fromkeys(hit[4].scope for hit in batch.found.values())
        tenants = [hit[4].scope.tenant for hit in batch.hits if hit]
        small = len(response) <= convert.RESPONSE_BYTES
        caller = self._let_in(context.invocation_metadata, tenants, scopes) if small else None
        if caller is None:
            return self._declined(terms.min_revision, *batch.hits)
        try:
            admit(len(parts))
        except Overloaded as error:
            return self._refuse_batch(error, begun, context)
        self._counters.batch_selected(batch.outcomes, batch.lookups, begun)
        self._end_batch(batch.keys, caller, begun, context)
        return response

    def _refuse(self, family: bytes, hit: CacheHit, begun: float, context: CallContext) -> bytes | Refusal:
        """Refuse a Select from a family that the local cache holds and nothing can be chosen from."""
        answer = Answer(snapshot_of(key_from_bytes(family), hit), Source.LOCAL, hit[3])
        self._ends.counters.began("Select", "negative" if hit[1] == NO_FAMILY else "hit")
        response, _ = self._ends.conclude_select(answer, b"", begun, context)
        return response

    def _wait(
        self,
        encoded: bytes,
        sticky_key: bytes,
        terms: Terms,
        hit: CacheHit | None,
        begun: float,
        context: CallContext,
    ) -> Awaitable[bytes | Refusal] | Declined:
        """Return what waits for a family that the local cache does not hold, or holds as of an older revision."""
        key = read_family(encoded)
        if key is None:
            return DECLINED
        caller = self._let_wait(key, terms, hit, context)
        if isinstance(caller, Declined):
            return caller
        return self._misses.select(key, sticky_key, terms, caller.subject, begun, context)


class _Batch:
    """The selections of a BatchSelect: each family is looked up once.

    ``hits`` has the lookup of each selection, ``lookups`` the numbers of families that were found, and found absent.
    ``results`` has each result, encoded, ``outcomes`` how many had each, ``keys`` those of the chosen routes.
    """

    def __init__(
        self,
        find: Callable[[bytes, int], CacheHit | None],
        family: Callable[[bytes, CacheHit], ReadyFamily],
        min_revision: int,
    ) -> None:
        self._find = find
        self._family = family
        self._min_revision = min_revision
        self._wanted: list[tuple[bytes, bytes]] = []
        self.found: dict[bytes, CacheHit] = {}
        self.hits: list[CacheHit | None] = []
        self.lookups = [0, 0]
        self.results: list[bytes] = []
        self.outcomes = [0] * len(selections.OUTCOMES)
        self.keys: list[bytes] = []

    def look_up(self, parts: Sequence[bytes]) -> bool:
        """Look the families up; False if one is not held as of ``min_revision``, or a part is not understood.

        In the latter case there are no ``hits``.
        """
        for part in parts:
            family, sticky_key, rest = wire.cut_selection(part)
            if rest or not family or not _is_sticky_key(sticky_key):
                return False
            self._wanted.append((family, sticky_key))
        found = {family: self._find(family, self._min_revision) for family, _ in self._wanted}
        self.hits = [found[family] for family, _ in self._wanted]
        self.found = {family: hit for family, hit in found.items() if hit and hit[2] >= self._min_revision}
        return len(self.found) == len(found)

    def select(self) -> None:
        """Select from the families that were looked up."""
        absent = sum(hit[1] == NO_FAMILY for hit in self.found.values())
        self.lookups = [len(self.found) - absent, absent]
        made = {
            family: (self._chooser(family, hit), encoder.select_provenance(hit)) for family, hit in self.found.items()
        }
        nothing: dict[bytes, tuple[bytes, int]] = {}
        for family, sticky_key in self._wanted:
            choose, provenance = made[family]
            chosen = choose(sticky_key)
            if chosen is None:
                # The same for each sticky key.
                result, outcome = nothing.get(family) or nothing.setdefault(family, self._nothing(family))
            else:
                result, outcome = encoder.select_result(chosen, provenance), chosen.outcome
                self.keys.append(chosen.key)
            self.results.append(result)
            self.outcomes[outcome] += 1

    def _chooser(self, family: bytes, hit: CacheHit) -> Callable[[bytes], Chosen | None]:
        return _choose_nothing if hit[1] == NO_FAMILY else self._family(family, hit).choose

    def _nothing(self, family: bytes) -> tuple[bytes, int]:
        """Encode the result where nothing can be chosen; return it with its outcome."""
        hit = self.found[family]
        selected = selections.choose(Answer(snapshot_of(key_from_bytes(family), hit), Source.LOCAL, hit[3]), b"")
        result = wire.field(1, selections.batch_result(selected).SerializeToString())
        return result, selections.OUTCOMES.index(selected.outcome)


def _choose_nothing(_sticky_key: bytes) -> None:
    return None


def _is_sticky_key(text: bytes) -> bool:
    return len(text) <= LONGEST_STICKY_KEY and (text.isascii() or _is_text(text))


def _is_text(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_family(encoded: bytes) -> RouteKey | None:
    """Read the key of a family by the rules of ``route_service.proto``; None for one that breaks them."""
    try:
        request = pb.SelectRequest.FromString(encoded)
    except DecodeError:
        return None
    parts = request.tenant, request.service, request.env
    if len(encoded) != FRAMING + sum(map(len, parts)) or not all(map(KEY_PART.fullmatch, parts)):
        return None
    return RouteKey(*parts, "")
