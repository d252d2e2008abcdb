"""What a refusal is on the wire, whichever way the call went: its code, its text and its trailers."""

import math
import random
from dataclasses import dataclass

from google.rpc import status_pb2
from grpc import StatusCode

from pointsman_server.domain.errors import PointsmanError, RetryLater
from pointsman_server.rpc import statuses
from pointsman_server.rpc.call import REQUEST_ID

Trailers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call ends that is not answered."""

    code: StatusCode
    text: str
    trailers: Trailers = ()


def of_error(error: PointsmanError, request_id: str, *, pushback: bool) -> Refusal:
    """Refuse for an error of the domain; ``pushback``: whether ``grpc-retry-pushback-ms`` can be sent."""
    retry = error.retry_delay if pushback and isinstance(error, RetryLater) else None
    return _refusal(statuses.code_of(error), statuses.status_of(error), request_id, retry)


def of_bug(request_id: str) -> Refusal:
    """Refuse for a bug of ours, of which nothing goes to the caller."""
    return _refusal(StatusCode.INTERNAL, statuses.internal(request_id), request_id, None)


def of_deadline(seconds: float) -> Refusal:
    """Refuse because our own deadline has passed, for a caller that set none."""
    text = f"the server's own deadline of {seconds:g} s has passed: set one that suits you"
    return Refusal(StatusCode.DEADLINE_EXCEEDED, text)


def _refusal(code: StatusCode, status: status_pb2.Status, request_id: str, retry_delay: float | None) -> Refusal:
    trailers: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status.SerializeToString()),
        (REQUEST_ID, request_id),
    ]
    if retry_delay is not None:
        # Never sooner than RetryInfo says, or a call over its rate would be over it again.
        spread = retry_delay * (1 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing
        trailers.append(("grpc-retry-pushback-ms", str(math.ceil(spread * 1000))))
    return Refusal(code, status.message, tuple(trailers))
