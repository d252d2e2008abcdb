"""A fake of XdsService: it answers what a test has put into it."""

# ruff: noqa: N802 - the methods are named as in the API.

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from pointsman.v1 import xds_service_pb2 as pb
from pointsman.v1.xds_service_pb2_grpc import XdsServiceServicer, add_XdsServiceServicer_to_server

T0 = 1_700_000_000
PAGE = 2


class FakeXdsService(XdsServiceServicer):
    """``requests`` has what it was asked, with the metadata; ``remaining``, the seconds until the deadline of each.

    A page has two clients, so that some have several.
    """

    def __init__(self) -> None:
        self.target = ""
        self.requests: list[tuple[Any, dict[str, Any]]] = []
        self.remaining: list[float] = []
        self.revision = 7
        self.clients: list[pb.XdsClient] = []
        self.explanation = pb.ExplainXdsResponse(revision=7)
        self.failure: tuple[grpc.StatusCode, str] | None = None
        # Whom the next connections lead to, the last one stays; ids of its clients begin with its name.
        self.workers = [""]
        self._worker = ""
        self.worker_count = 0

    def add(self, node_id: str, **fields: Any) -> pb.XdsClient:
        usual: dict[str, Any] = {
            "user_agent": "gRPC C-core linux 1.85.3",
            "kind": pb.XDS_CLIENT_KIND_GRPC,
            "address": "127.0.0.1:4242",
            "subject": "anonymous",
            "acknowledged_revision": self.revision,
        }
        client = pb.XdsClient(id=str(len(self.clients)), node_id=node_id, **usual | fields)
        client.connect_time.seconds = T0
        client.name_count = client.name_count or len(client.names)
        self.clients.append(client)
        return client

    def ListXdsClients(self, request: Any, context: Any) -> pb.ListXdsClientsResponse:
        self._enter(request, context)
        if not request.page_token:
            self._worker = self.workers.pop(0) if len(self.workers) > 1 else self.workers[0]
        wanted = [
            each
            for each in self.clients
            if each.id.startswith(self._worker)
            and any(name.startswith(request.name_prefix) for name in each.names or [""])
        ]
        first = int(request.page_token or 0)
        rest = str(first + PAGE) if len(wanted) > first + PAGE else ""
        return pb.ListXdsClientsResponse(
            clients=wanted[first : first + PAGE],
            next_page_token=rest,
            revision=self.revision,
            worker=self._worker,
            worker_count=self.worker_count,
        )

    def ExplainXds(self, request: Any, context: Any) -> pb.ExplainXdsResponse:
        self._enter(request, context)
        answer = pb.ExplainXdsResponse()
        answer.CopyFrom(self.explanation)
        answer.name = answer.name or "~".join(reversed(request.key.split("/")))
        if request.kind:
            every = [each for each in answer.explanations if each.kind == request.kind]
            del answer.explanations[:]
            answer.explanations.extend(every)
        return answer

    def _enter(self, request: Any, context: Any) -> None:
        self.requests.append((request, dict(context.invocation_metadata())))
        self.remaining.append(context.time_remaining())
        if self.failure:
            context.abort(*self.failure)


@contextmanager
def serving(servicer: FakeXdsService) -> Iterator[FakeXdsService]:
    """Serve on a free port of the loopback interface until the block ends."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=(("grpc.so_reuseport", 0),))
    add_XdsServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield servicer
    finally:
        server.stop(grace=None).wait()
