"""How calls of the fast path end: encoded or refused, counted and logged as the interceptor chain would."""

from typing import Protocol, cast

from grpc import StatusCode

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.reads.answer import Answer
from pointsman_server.rpc import selections, statuses
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.call import Call, Context, call_of
from pointsman_server.rpc.fastpath import encoder
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.guards import Metadata
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)


class CallContext(Protocol):
    """What the fast path needs to know of a call. A subset of grpcio's context."""

    def invocation_metadata(self) -> Metadata | None: ...

    def peer(self) -> str: ...

    def time_remaining(self) -> float | None: ...


class DeadlinePassed(Exception):
    """The default deadline of the server, in seconds, is exceeded."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class CallEnds:
    """Ends calls."""

    def __init__(self, counters: FastPathCounters, access_log: AccessLog) -> None:
        self.counters = counters
        self._access_log = access_log

    @property
    def samples(self) -> bool:
        """Whether calls that end with OK may be logged whatever the level of the log."""
        return self._access_log.samples

    @property
    def logs_answers(self) -> bool:
        """Whether calls that end with OK may be logged now."""
        return self._access_log.logs_answers

    def conclude(self, outcome: Answer | BaseException, begun: float, context: CallContext) -> bytes | Refusal:
        """End a Resolve that was not answered by the local cache with an active route."""
        if isinstance(outcome, BaseException):
            if isinstance(outcome, PointsmanError):
                self.counters.failed()
            return self.refuse("Resolve", outcome, begun, context)
        try:
            response = encoder.response_of(outcome)
        except PointsmanError as error:
            found = "absent" if outcome.snapshot.route is None else "inactive"
            self.counters.resolved(found, outcome.source, begun)
            return self.refuse("Resolve", error, begun, context)
        except Exception as error:  # noqa: BLE001 - the boundary: no cause goes to the caller
            return self.refuse("Resolve", error, begun, context)
        self.counters.answered(outcome.source, begun)
        if self.logs_answers:
            self.log_answer("Resolve", begun, context)
        return response

    def conclude_select(
        self, outcome: Answer | BaseException, sticky_key: bytes, begun: float, context: CallContext
    ) -> tuple[bytes | Refusal, bytes]:
        """End a Select that was not answered by the local cache with a route.

        Returns the response, or how it is refused; and the key of the route, which is empty without one.
        """
        counters = self.counters.selects
        if isinstance(outcome, BaseException):
            if isinstance(outcome, PointsmanError):
                counters.failed()
            return self.refuse("Select", outcome, begun, context), b""
        try:
            selected = selections.choose(outcome, sticky_key)
            place = selections.OUTCOMES.index(selected.outcome)
            if isinstance(selected.chosen, PointsmanError):
                counters.undecided(place, outcome.source, begun)
                return self.refuse("Select", selected.chosen, begun, context), b""
            response = selections.select_response(selected).SerializeToString()
        except Exception as error:  # noqa: BLE001 - the boundary: no cause goes to the caller
            return self.refuse("Select", error, begun, context), b""
        counters.answered(place, outcome.source, begun)
        if self.logs_answers:
            self.log_answer("Select", begun, context)
        return response, key_to_bytes(selected.chosen[0].key)

    def refuse(self, method: str, error: BaseException, begun: float, context: CallContext) -> Refusal:
        """End a call with an error."""
        call = _call(context)
        refusal = self._refusal(error, call.request_id)
        self.counters.refused(method, statuses.name_of(refusal.code), begun)
        self._access_log.record(method, refusal.code, begun, call)
        return refusal

    def cancelled(self, method: str, begun: float, context: CallContext) -> None:
        """End a call that its caller cancelled, or whose deadline is exceeded."""
        remaining = context.time_remaining()
        late = remaining is not None and remaining <= 0
        code = StatusCode.DEADLINE_EXCEEDED if late else StatusCode.CANCELLED
        self.counters.refused(method, statuses.name_of(code), begun)
        self._access_log.record(method, code, begun, _call(context))

    def log_answer(self, method: str, begun: float, context: CallContext) -> None:
        """Log a call that was answered."""
        self._access_log.record(method, StatusCode.OK, begun, _call(context))

    def _refusal(self, error: BaseException, request_id: str) -> Refusal:
        if isinstance(error, PointsmanError):
            return Refusal.of_error(error, request_id)
        if isinstance(error, DeadlinePassed):
            return Refusal.of_deadline(error.seconds, request_id)
        log.error("unexpected error", request_id=request_id, exc_info=error)
        return Refusal.of_bug(request_id)


def _call(context: CallContext) -> Call:
    return call_of(cast("Context", context))
