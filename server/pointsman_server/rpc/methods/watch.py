"""Watch of RouteService: decodes the request; the events of the stream are encoded already."""

from typing import Any

from pointsman.v1 import watch_pb2 as pb
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.streams import WatchStreams
from pointsman_server.ports.store import Clock


class WatchMethod:
    """Serves Watch from the streams of this process."""

    def __init__(self, streams: WatchStreams) -> None:
        self._streams = streams

    async def watch(self, request: pb.WatchRequest, context: Any) -> None:
        """Write events until the stream ends. Raises what ``WatchStreams.serve`` raises."""
        resume = Clock(request.resume.epoch, request.resume.revision) if request.HasField("resume") else None
        wanted = Filter(request.tenant, request.service, request.env, request.traffic)
        await self._streams.serve(wanted, resume, context.write)
