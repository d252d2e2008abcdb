"""Metrics of streams, and a log of what clients refuse."""

import time
from collections.abc import Callable

from pointsman_server.telemetry.logs import get_logger
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.xds.clients.text import printable
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.stream import Observer, Stream
from pointsman_server.xds.views import ClientKind

log = get_logger(__name__)

# Refusals that are logged in so many seconds; one bad change is refused by every client.
MOST_LOGGED, LOG_SECONDS = 5, 10.0
# Of what a client says, in the log.
MOST_TEXT = 500


class XdsMeter(Observer):
    """Counts what happens on the streams of this process, with the labels bound once."""

    def __init__(self, metrics: Metrics, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._streams = {kind: metrics.xds_streams.labels(kind) for kind in ClientKind}
        self._pushes = {kind: metrics.xds_pushes.labels(kind.name) for kind in ResourceType}
        self._refusals = {kind: metrics.xds_refusals.labels(kind.name) for kind in ResourceType}
        self._seconds = {kind: metrics.xds_ack_seconds.labels(kind.name) for kind in ResourceType}
        for gauge in self._streams.values():
            gauge.set(0)
        self._logged = self._unlogged = 0
        self._since = now()

    def opened(self, stream: Stream) -> None:
        self._streams[stream.client.view.kind].inc()

    def closed(self, stream: Stream) -> None:
        self._streams[stream.client.view.kind].dec()

    def pushed(self, stream: Stream, kind: ResourceType) -> None:
        self._pushes[kind].inc()

    def acknowledged(self, stream: Stream, kind: ResourceType, seconds: float) -> None:
        self._seconds[kind].observe(seconds)

    def refused(self, stream: Stream, kind: ResourceType, text: str) -> None:
        self._refusals[kind].inc()
        if self._may_log():
            client = stream.client
            log.warning(
                "an xDS client refused a response",
                resource_type=kind.name,
                text=printable(text)[:MOST_TEXT],
                node=printable(client.node),
                agent=printable(client.agent),
                subject=client.caller.subject,
                peer=client.peer,
            )

    def _may_log(self) -> bool:
        now = self._now()
        if now - self._since >= LOG_SECONDS:
            if self._unlogged:
                log.warning("xDS clients refused more responses, which were not logged", count=self._unlogged)
            self._since, self._logged, self._unlogged = now, 0, 0
        if self._logged < MOST_LOGGED:
            self._logged += 1
            return True
        self._unlogged += 1
        return False
