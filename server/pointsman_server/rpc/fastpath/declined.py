"""What the fast path declines: the interceptor chain serves the call, with what was looked up in the local cache."""

from contextvars import ContextVar
from dataclasses import dataclass

from pointsman_server.reads.local_lookup import LocalLookup
from pointsman_server.rpc.refusal import Refusal

_lookup: ContextVar[LocalLookup | None] = ContextVar("local_lookup", default=None)

lookup_of_call = _lookup.get
set_lookup_of_call = _lookup.set


@dataclass(frozen=True, slots=True)
class Declined:
    """The interceptor chain has to serve the call; ``lookup`` is what the local cache held, if it was looked up."""

    lookup: LocalLookup | None = None


DECLINED = Declined()
Outcome = bytes | Refusal | Declined
