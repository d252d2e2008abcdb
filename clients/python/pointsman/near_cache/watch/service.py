"""The calls of a near-cache, on a channel of its own."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import grpc

from pointsman.connection.bearer import Bearer
from pointsman.near_cache.watch.follower import Metadata, Stream
from pointsman.v1.propagation_pb2 import ReportProgressRequest
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.usage_pb2 import ReportUsageRequest
from pointsman.v1.watch_pb2 import WatchRequest

REPORT_TIMEOUT_SECONDS = 5.0
TOKEN_TIMEOUT_SECONDS = 5.0


class RemoteService:
    """The server. The synchronous API, in threads, for both clients: two asyncio pollers in one process clash.

    Make it in the process that uses it: a channel does not survive a fork.
    """

    def __init__(self, open_channel: Callable[[], grpc.Channel], token: Callable[[], str | None]) -> None:
        self._open_channel = open_channel
        self._token = token
        self._lock = threading.Lock()
        self._closed = False
        self._reports: set[Any] = set()
        self.generation = 0
        self._connect()

    def renew(self, generation: int) -> None:
        """Use another connection, unless that has been done since ``generation``.

        Packets of a connection may be dropped without a reset: every later call on it is silent as well.
        """
        with self._lock:
            if generation != self.generation or self._closed:
                return
            self.generation += 1
            old = self._channel
            self._connect()
        old.close()

    def _connect(self) -> None:
        self._channel = self._open_channel()
        self._stub: Any = RouteServiceStub(self._channel)

    def metadata(self) -> Metadata:
        """Return the metadata of the next call. Raises PointsmanError when there is no token."""
        token = self._token()
        return () if token is None else (("authorization", f"Bearer {token}"),)

    def watch(self, request: WatchRequest, metadata: Metadata) -> Stream:
        """Open a stream. It fails as it is read."""
        return cast("Stream", self._stub.Watch(request, metadata=metadata))

    def report_progress(self, request: ReportProgressRequest, metadata: Metadata) -> None:
        """Report, and do not wait for the response: a report that is lost is asked for again."""
        report = self._stub.ReportProgress.future(request, timeout=REPORT_TIMEOUT_SECONDS, metadata=metadata)
        # gRPC cancels a call that nothing refers to.
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)

    def report_usage(self, request: ReportUsageRequest, metadata: Metadata) -> "grpc.Future[Any]":
        """Begin to report."""
        return cast(
            "grpc.Future[Any]",
            self._stub.ReportUsage.future(request, timeout=REPORT_TIMEOUT_SECONDS, metadata=metadata),
        )

    def close(self) -> None:
        """Close the channel. Calls under way end as cancelled."""
        with self._lock:
            self._closed = True
        self._channel.close()


def token_source(bearer: Bearer) -> Callable[[], str | None]:
    """Return a function that returns the token, for a thread. An asynchronous one runs in the loop that runs now."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return bearer.token

    def token() -> str | None:
        getting = asyncio.run_coroutine_threadsafe(bearer.token_within(TOKEN_TIMEOUT_SECONDS), loop)
        return getting.result(TOKEN_TIMEOUT_SECONDS + 1)

    return token
