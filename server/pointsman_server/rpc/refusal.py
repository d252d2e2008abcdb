"""The status of a refused call: code, text and trailers. The fast path and the interceptors share it."""

import math
import random
from dataclasses import dataclass
from typing import NoReturn

from google.rpc import status_pb2
from grpc import StatusCode

from pointsman_server.domain.errors import PointsmanError, RetryLater
from pointsman_server.rpc import statuses
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.transport.limits import REQUEST_ID

Trailers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status with which a call is refused."""

    code: StatusCode
    text: str
    trailers: Trailers = ()

    @classmethod
    def of_error(cls, error: PointsmanError, request_id: str) -> "Refusal":
        """Refuse for a domain error."""
        retry_delay = error.retry_delay if isinstance(error, RetryLater) else None
        trailers = _trailers(statuses.status_of(error, request_id), request_id, retry_delay)
        return cls(statuses.code_of(error), error.message, trailers)

    @classmethod
    def of_bug(cls, request_id: str) -> "Refusal":
        """Refuse for an unexpected error, without anything of its cause."""
        status = statuses.internal(request_id)
        return cls(StatusCode.INTERNAL, status.message, _trailers(status, request_id, None))

    @classmethod
    def of_deadline(cls, seconds: float, request_id: str) -> "Refusal":
        """Refuse because the server's default deadline is exceeded, for a caller that set none."""
        text = f"default server deadline ({seconds:g} s) exceeded: set a client deadline"
        return cls._plain(StatusCode.DEADLINE_EXCEEDED, text, request_id)

    @classmethod
    def of_unimplemented(cls, request_id: str) -> "Refusal":
        """Refuse a method that a service declares and does not implement."""
        return cls._plain(StatusCode.UNIMPLEMENTED, "this server does not implement the method", request_id)

    @classmethod
    def _plain(cls, code: StatusCode, text: str, request_id: str) -> "Refusal":
        return cls(code, text, _trailers(statuses.plain(code, text, request_id), request_id, None))


async def abort(context: Context, refusal: Refusal) -> NoReturn:
    """End a call with ``refusal``."""
    # Trailers first, then abort: abort_with_status drops trailers that were set before it.
    context.set_trailing_metadata(refusal.trailers)
    await context.abort(refusal.code, refusal.text)


def _trailers(status: status_pb2.Status, request_id: str, retry_delay: float | None) -> Trailers:
    trailers: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status.SerializeToString()),
        (REQUEST_ID, request_id),
    ]
    if retry_delay is not None:
        # Never less than RetryInfo says: a call over its rate would be over it again.
        spread = retry_delay * (1 + random.random() / 2)  # noqa: S311 - spreads load
        trailers.append(("grpc-retry-pushback-ms", str(math.ceil(spread * 1000))))
    return tuple(trailers)
