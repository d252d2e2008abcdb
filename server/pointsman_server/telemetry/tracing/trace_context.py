"""The context of a trace as it travels: in metadata, in the history, in Kafka (W3C Trace Context)."""

import re
from typing import NamedTuple

# §3.2. Fields that later versions may add are not passed on.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# §3.3.1.5: what has to be passed on at least, and here at most.
MOST_STATE = 512


class TraceContext(NamedTuple):
    """The span that caused something: its ``traceparent``, and the ``tracestate`` of vendors. Empty without one."""

    traceparent: str = ""
    tracestate: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the caller records its part of the trace."""
        return bool(self.traceparent) and bool(int(self.traceparent[53:55], 16) & 1)


NO_TRACE = TraceContext()


def received(traceparent: str, tracestate: str) -> TraceContext:
    """Return what a caller sent; empty for what is malformed or too long, because it is stored and published."""
    if not _TRACEPARENT.fullmatch(traceparent):
        return NO_TRACE
    return TraceContext(traceparent, tracestate if len(tracestate) <= MOST_STATE else "")
