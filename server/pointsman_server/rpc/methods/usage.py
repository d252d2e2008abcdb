"""GetUsage and ReportUsage of RouteService, the reads that its other methods count, and their ``if_unused_for``."""

from collections.abc import Iterable, Sequence

from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2
from pointsman.v1 import usage_pb2 as pb
from pointsman_server.domain.codec import key_from_message, key_to_bytes, timestamp
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports.usage_log import Reader, Reads
from pointsman_server.reads.answer import Answer
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.unused import Condition, Load, UnusedCheck
from pointsman_server.reads.usage import FLUSH_SECONDS, UsageRecorder
from pointsman_server.rpc.call import current_call

Conditional = route_service_pb2.DeactivateRequest | route_service_pb2.DeleteRequest


class UsageMethods:
    """Serves the methods from the reads that all servers have counted."""

    def __init__(self, recorder: UsageRecorder, counts: ReadCounts, load: Load) -> None:
        """``load`` reads routes from the store."""
        self._recorder = recorder
        self._counts = counts
        self._unused = UnusedCheck(recorder, load)

    def resolved(self, answers: Iterable[tuple[RouteKey, Answer | PointsmanError]]) -> None:
        """Count reads of the current caller; a key without a route is not counted."""
        keys = [key_to_bytes(key) for key, answer in answers if isinstance(answer, Answer) and answer.snapshot.route]
        if keys:
            self._counts.read_many(keys, current_call().identity.subject)

    def selected(self, keys: Iterable[RouteKey]) -> None:
        """Count reads of routes that were chosen for the current caller."""
        encoded = list(map(key_to_bytes, keys))
        if encoded:
            self._counts.read_many(encoded, current_call().identity.subject)

    async def refusal(self, request: Conditional) -> PointsmanError | None:
        """Return why ``if_unused_for`` of a request forbids it; None if it does not."""
        (refusal,) = await self.refusals([request])
        return refusal

    async def refusals(self, requests: Sequence[Conditional]) -> list[PointsmanError | None]:
        """Return for each request why its ``if_unused_for`` forbids it; None where it does not."""
        asked = [position for position, request in enumerate(requests) if request.HasField("if_unused_for")]
        refusals: list[PointsmanError | None] = [None] * len(requests)
        if asked:
            found = await self._unused.refusals([_condition(requests[position]) for position in asked])
            for position, refusal in zip(asked, found, strict=True):
                refusals[position] = refusal
        return refusals

    async def get_usage(self, request: pb.GetUsageRequest) -> pb.GetUsageResponse:
        """Say who has read a route."""
        usage = await self._recorder.usage(key_from_message(request.key))
        return pb.GetUsageResponse(
            readers=map(_reader, usage.readers),
            window=Duration(seconds=int(self._recorder.window)),
            all_servers=usage.all_servers,
        )

    def report_usage(self, request: pb.ReportUsageRequest) -> pb.ReportUsageResponse:
        """Count what a near-cache has answered as reads of its caller."""
        if not self._recorder.window:
            return pb.ReportUsageResponse()
        subject = current_call().identity.subject
        self._recorder.add(Reads(key_from_message(read.key), subject, read.count) for read in request.reads)
        return pb.ReportUsageResponse(interval=Duration(seconds=int(FLUSH_SECONDS)))


def _condition(request: Conditional) -> Condition:
    duration = request.if_unused_for
    return Condition(key_from_message(request.key), duration.seconds + duration.nanos / 1e9)


def _reader(reader: Reader) -> pb.Reader:
    return pb.Reader(subject=reader.subject, read_count=reader.count, last_read_time=timestamp(reader.last))
