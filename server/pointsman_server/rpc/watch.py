"""Watch of RouteService: decodes the request, and writes the events of the stream, which are encoded already."""

from contextlib import aclosing
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
        """Write events until the stream ends. Raises what ``WatchStreams.open`` raises."""
        resume = Clock(request.resume.epoch, request.resume.revision) if request.HasField("resume") else None
        wanted = Filter(request.tenant, request.service, request.env)
        async with aclosing(self._streams.open(wanted, resume)) as events:
            async for event in events:
                await context.write(event)
