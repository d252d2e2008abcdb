"""The span of a load or a transaction that is made for many callers at once."""

from collections.abc import Sequence

from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Kind, Span


class BatchSpans:
    """Makes the spans of one kind of batch (``runtime.batcher.BatchTracer``).

    The span is under that of the first caller, and links to all; each of the others links to it. So the trace of every
    caller leads to what was done for it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def caller(self) -> Span | None:
        """Return the span of who asks, if it is recorded."""
        return spans.current()

    def running(self, callers: Sequence[Span], size: int) -> Span:
        """Begin the span of a batch of ``size``, asked for by ``callers``, at least one."""
        known = {caller.context: caller for caller in callers}
        batch = spans.of_many(self._name, Kind.INTERNAL, list(known), {"pointsman.batch.size": size})
        for caller in list(known.values())[1:]:
            caller.link(batch.context)
        return batch
