"""AsyncCalls: a connection for asyncio, and how a call is made over it."""

# ruff: noqa: ASYNC109 - the timeout is a gRPC deadline: it goes to the server and bounds the retries too.

import asyncio
from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio

from pointsman.base import BaseClient
from pointsman.connection.bearer import AsyncToken
from pointsman.rpc.calls import Call
from pointsman.rpc.operations import Operation, Page
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub

if TYPE_CHECKING:
    from pointsman.v1.route_service_pb2_grpc import RouteServiceAsyncStub  # the stubs know it, the module does not

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")
Item = TypeVar("Item")


class AsyncCalls(BaseClient[AsyncToken]):
    """What the methods of ``AsyncClient`` share."""

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=self._options)
        return grpc.aio.secure_channel(self._target, self._credentials, options=self._options)

    @cached_property
    def _stub(self) -> "RouteServiceAsyncStub":
        return RouteServiceStub(self._channel)

    async def _call(
        self, operation: Operation[Request, Response, Result], request: Request, timeout: float | None
    ) -> Result:
        method = cast("grpc.aio.UnaryUnaryMultiCallable[Request, Response]", getattr(self._stub, operation.name))
        call = Call(self._session, operation, request, timeout)
        while True:
            metadata = call.metadata(await self._session.bearer.token_within(call.seconds_left()))
            try:
                return call.answered(await method(request, timeout=call.seconds_left(), metadata=metadata))
            except grpc.RpcError as error:
                pause = call.failed(error)
            await asyncio.sleep(pause)

    async def _pages(
        self, operation: Operation[Any, Response, Page[Item]], request: Any, timeout: float | None
    ) -> AsyncIterator[Item]:
        while True:
            page = await self._call(operation, request, timeout)
            for item in page.items:
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
