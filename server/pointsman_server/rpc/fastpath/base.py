"""What the fast paths of Resolve and Select do alike."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from pointsman_server.domain.errors import Overloaded
from pointsman_server.domain.identity import Identity, Scope
from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.cache_entry import CacheHit
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_lookup import LocalLookup
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.rpc.fastpath.call_ends import CallContext, CallEnds
from pointsman_server.rpc.fastpath.declined import DECLINED, Declined
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.misses import Misses
from pointsman_server.rpc.fastpath.terms import Terms
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.telemetry.logs import verbosity


class BasePath:
    """Serves ``METHOD`` and ``BATCH_METHOD`` from ``local`` and, beyond it, ``METHOD`` from ``misses``.

    ``epoch`` gives that of the store. ``reads`` counts who reads which route. ``now`` is the clock of the resolver.
    """

    METHOD: ClassVar[str]
    BATCH_METHOD: ClassVar[str]

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
        self._find = local.find
        self._misses = misses
        self._admission = guards.admission
        self._let_in = guards.let_in
        self._ends = ends
        self._samples = ends.samples
        self._epoch = epoch
        self._reads = reads
        self._now = now

    def _counts_in(self, epoch: str) -> bool:
        """Say whether revisions of ``epoch`` can be compared with those of the store now."""
        return not epoch or epoch == self._epoch()

    def _declined(self, min_revision: int, *hits: CacheHit | None) -> Declined:
        return Declined(LocalLookup(min_revision, self._now(), hits))

    def _note(self, key: bytes, caller: Identity, begun: float, context: CallContext) -> None:
        """Do what is not done for each answer: count who reads the route, and log the call."""
        if not self._reads.left:
            self._reads.sample(key, caller.subject)
        if self._samples or verbosity.debug:
            self._ends.log_answer(self.METHOD, begun, context)

    def _let_wait(self, key: RouteKey, terms: Terms, hit: CacheHit | None, context: CallContext) -> Identity | Declined:
        """Return the caller if the call may wait for ``key``, and count its start; else decline."""
        looked_up = not terms.from_store
        if not self._admission.full:
            caller = self._let_in(context.invocation_metadata, (key.tenant,), (Scope(key.tenant, key.env),))
            if caller is not None:
                self._ends.counters.began(self.METHOD, ("stale" if hit else "miss") if looked_up else "")
                return caller
        return self._declined(terms.min_revision, hit) if looked_up else DECLINED

    def _refuse_batch(self, error: Overloaded, begun: float, context: CallContext) -> Refusal:
        self._ends.counters.began(self.BATCH_METHOD)
        return self._ends.refuse(self.BATCH_METHOD, error, begun, context)

    def _end_batch(self, keys: Sequence[bytes], caller: Identity, begun: float, context: CallContext) -> None:
        """Count who reads ``keys``, and log the batch."""
        self._reads.read_many(keys, caller.subject)
        if self._samples or verbosity.debug:
            self._ends.log_answer(self.BATCH_METHOD, begun, context)
