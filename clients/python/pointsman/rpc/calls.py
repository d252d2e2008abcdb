"""One call: its attempts, the deadline that bounds them all, and what is learned from how it ends.

gRPC itself tries again while the server is UNAVAILABLE (``channels``). Two more reasons for another attempt are seen
here, because both need what the answer says: a server that asks to wait (RESOURCE_EXHAUSTED with ``RetryInfo``,
which any transport can send), and a token that has expired while its source has another one by now.
"""

import random
from typing import Generic, TypeVar

import grpc

from pointsman.errors import DeadlineExceeded, PointsmanError, ResourceExhausted, Unauthenticated
from pointsman.rpc.operations import Operation
from pointsman.rpc.session import NO_TIME, Session
from pointsman.rpc.statuses import error_from_call
from pointsman.rpc.trace_context import trace_metadata

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")

_SPREAD = 0.25


class Call(Generic[Request, Response, Result]):
    """One call of one method. For each attempt: ``metadata``, then ``answered``, or ``failed`` and a pause."""

    def __init__(
        self,
        session: Session,
        operation: Operation[Request, Response, Result],
        request: Request,
        timeout: float | None,
    ) -> None:
        self._session = session
        self._operation = operation
        self._request = request
        self._began = session.memory.epoch
        self._attempts_left = session.max_attempts
        self._token: str | None = None
        self._expired: PointsmanError | None = None
        self.seconds_left = session.countdown(timeout)

    def metadata(self, token: str | None) -> tuple[tuple[str, str], ...]:
        """Return the metadata of the next attempt.

        Raises what the last one did when its token has expired and this is the same, and DeadlineExceeded when it
        took all of the time to get the token.
        """
        if token is None:
            return trace_metadata()
        if self._expired is not None and token == self._token:
            raise self._expired
        if self.seconds_left() <= NO_TIME:
            raise DeadlineExceeded("getting the token took as long as the call may take")
        self._token = token
        return (("authorization", f"Bearer {token}"), *trace_metadata())

    def answered(self, response: Response) -> Result:
        """Return the result, and remember what it tells."""
        return self._session.accepted(self._operation, self._request, response, self._began)

    def failed(self, error: grpc.RpcError) -> float:
        """Return how many seconds to wait before another attempt, or raise the error of the call."""
        failure = self._session.refused(self._operation, self._request, error_from_call(error), self._began)
        failure.__cause__ = error
        self._attempts_left -= 1
        pause = self._pause(failure) if self._attempts_left > 0 else None
        if pause is None:
            raise failure
        return pause

    def _pause(self, failure: PointsmanError) -> float | None:
        if isinstance(failure, Unauthenticated):
            return self._renewal(failure)
        if isinstance(failure, ResourceExhausted) and failure.retry_delay is not None:
            # Never earlier than asked for, and not all callers at once.
            pause = failure.retry_delay.total_seconds() * random.uniform(1, 1 + _SPREAD)  # noqa: S311 - no secret
            return pause if pause < self.seconds_left() else None
        return None

    def _renewal(self, failure: Unauthenticated) -> float | None:
        if failure.problem != "expired" or self._token is None or self._expired is not None:
            return None
        self._expired = failure
        self._session.bearer.refused()
        return 0.0
