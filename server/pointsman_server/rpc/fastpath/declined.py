"""The local cache lookup of a call that the fast path declined, for the handler of the same call."""

from contextvars import ContextVar

from pointsman_server.reads.local_lookup import LocalLookup

_lookup: ContextVar[LocalLookup | None] = ContextVar("local_lookup", default=None)

lookup_of_call = _lookup.get
set_lookup_of_call = _lookup.set
