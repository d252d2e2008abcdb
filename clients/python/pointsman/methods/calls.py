"""SyncCalls: a connection for threads, and how a call is made over it."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import grpc

from pointsman.base import BaseClient
from pointsman.connection.bearer import Token
from pointsman.rpc.calls import Call
from pointsman.rpc.operations import Operation, Page
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")
Item = TypeVar("Item")


class SyncCalls(BaseClient[Token]):
    """What the methods of ``Client`` share."""

    def _prepare(self) -> None:
        if self._credentials is None:
            self._channel = grpc.insecure_channel(self._target, options=self._options)
        else:
            self._channel = grpc.secure_channel(self._target, self._credentials, options=self._options)
        self._stub = RouteServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calls in flight end as cancelled."""
        self._channel.close()

    def _call(self, operation: Operation[Request, Response, Result], request: Request, timeout: float | None) -> Result:
        method = cast("grpc.UnaryUnaryMultiCallable[Request, Response]", getattr(self._stub, operation.name))
        call = Call(self._session, operation, request, timeout)
        while True:
            metadata = call.metadata(self._session.bearer.token())
            try:
                return call.answered(method(request, timeout=call.seconds_left(), metadata=metadata))
            except grpc.RpcError as error:
                pause = call.failed(error)
            time.sleep(pause)

    def _pages(
        self, operation: Operation[Any, Response, Page[Item]], request: Any, timeout: float | None
    ) -> Iterator[Item]:
        while True:
            page = self._call(operation, request, timeout)
            yield from page.items
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
