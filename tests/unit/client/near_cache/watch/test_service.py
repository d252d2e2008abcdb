"""service: the calls of a near-cache."""

import grpc

from pointsman.near_cache.watch.service import RemoteService
from pointsman.v1.propagation_pb2 import ReportProgressRequest
from pointsman.v1.watch_pb2 import ResumeToken
from tests.support.fake_route_service import FakeServer
from tests.support.waiting import eventually


def test_a_report_that_nobody_waits_for_arrives(server: FakeServer) -> None:
    """A call of gRPC is cancelled when nothing refers to it any more."""
    server.report_seconds = 0.1
    service = RemoteService(lambda: grpc.insecure_channel(server.target), lambda: None)
    try:
        for revision in range(1, 4):
            applied = ResumeToken(epoch="epoch-1", revision=revision)
            service.report_progress(ReportProgressRequest(watcher_id="w" * 16, applied=applied), ())
        assert eventually(lambda: len(server.reports) == 3, 5)
    finally:
        service.close()
