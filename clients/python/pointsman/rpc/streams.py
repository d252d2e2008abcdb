"""One stream of Watch, as the server sends it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import grpc

from pointsman.errors import PointsmanError, Unauthenticated
from pointsman.rpc.session import Session
from pointsman.rpc.statuses import error_from_call
from pointsman.v1.watch_pb2 import WatchResponse


class EventStream:
    """Iterate over it once; ``cancel`` ends it, also from another thread. Errors are PointsmanError."""

    def __init__(self, session: Session, call: Any) -> None:
        self._session = session
        self._call = call

    def __iter__(self) -> Iterator[WatchResponse]:
        try:
            yield from cast("Iterator[WatchResponse]", self._call)
        except grpc.RpcError as error:
            raise ended(self._session, error) from error
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Close the stream."""
        self._call.cancel()


async def events(session: Session, call: Any) -> AsyncIterator[WatchResponse]:
    """Yield the events of a stream of ``AsyncClient``, and close it at the end. Raises PointsmanError."""
    try:
        async for event in call:
            yield event
    except grpc.RpcError as error:
        raise ended(session, error) from error
    finally:
        call.cancel()


def ended(session: Session, error: grpc.RpcError) -> PointsmanError:
    """Return what to raise for a stream that ended. A bearer token that was refused is read anew for the next one."""
    failure = error_from_call(error)
    if isinstance(failure, Unauthenticated) and failure.problem == "expired":
        session.bearer.refused()
    return failure
