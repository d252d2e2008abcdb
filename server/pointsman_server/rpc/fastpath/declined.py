"""What the fast path looked up for the call under way, before it declined it."""

from contextvars import ContextVar

from pointsman_server.reads.local_lookup import LocalLookup

_lookup: ContextVar[LocalLookup | None] = ContextVar("local_lookup", default=None)

lookup_of_call = _lookup.get
set_lookup_of_call = _lookup.set
