"""What is asked of the receipts for a call, and how their answer is written."""

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from pointsman.v1 import propagation_pb2 as pb
from pointsman.v1.watch_pb2 import ResumeToken, Watcher, WatchRequest
from pointsman_server.domain.identity import Credential, Identity
from pointsman_server.events.receipts.propagation import Laggard, Propagation
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, WatchName
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.methods.receipts import ReceiptMethods
from tests.support.call_context import CallContext

ID = "watcher-0123456789"
NAME = WatchName(ID, "jwt:cache", "team-a", "payments", "prod")
WHERE = {"tenant": "team-a", "service": "payments", "env": "prod"}


class Receipts:
    """Records what it is asked."""

    def __init__(self) -> None:
        self.open: list[OpenWatch] = []
        self.reports: list[tuple[WatchName, Clock]] = []
        self.asked: list[tuple[int, Filter]] = []
        self.found = Propagation(0, 0, [], all_servers=True)

    @contextmanager
    def watching(self, watch: OpenWatch) -> Any:
        self.open.append(watch)
        yield
        self.open.remove(watch)

    async def report(self, name: WatchName, applied: Clock) -> None:
        self.reports.append((name, applied))

    async def propagation(self, revision: int, of: Filter) -> Propagation:
        self.asked.append((revision, of))
        return self.found


@pytest.fixture
def receipts() -> Receipts:
    call = begin_call(cast("Any", CallContext()))
    call.identity = Identity("jwt:cache", Credential.BEARER_TOKEN)
    return Receipts()


@pytest.fixture
def methods(receipts: Receipts) -> ReceiptMethods:
    return ReceiptMethods(cast("Any", receipts))


def test_a_watch_is_that_of_its_authenticated_subject(receipts, methods):
    with methods.watching(WatchRequest(watcher=Watcher(id=ID, name="checkout on host-7"), **WHERE)):
        [watch] = receipts.open
        assert (watch.name, watch.title, watch.address) == (NAME, "checkout on host-7", "ipv4:127.0.0.1:1")
    assert receipts.open == []


def test_a_watch_without_an_id_is_not_counted(receipts, methods):
    with methods.watching(WatchRequest(watcher=Watcher(name="checkout"), **WHERE)):
        assert receipts.open == []


async def test_a_report_is_that_of_its_authenticated_subject(receipts, methods):
    applied = ResumeToken(epoch="e", revision=7)
    await methods.report_progress(pb.ReportProgressRequest(watcher_id=ID, applied=applied, **WHERE))
    assert receipts.reports == [(NAME, Clock("e", 7))]


async def test_what_is_known_is_written(receipts, methods):
    since = datetime(2026, 1, 2, tzinfo=UTC)
    laggard = Laggard(OpenWatch(NAME, "checkout", "ipv4:127.0.0.1:1", since), 5)
    receipts.found = Propagation(3, 2, [laggard], all_servers=False)

    response = await methods.get_propagation(pb.GetPropagationRequest(revision=7, **WHERE))

    assert receipts.asked == [(7, Filter("team-a", "payments", "prod"))]
    assert (response.watcher_count, response.applied_count, response.all_servers) == (3, 2, False)
    [behind] = response.behind
    assert (behind.watcher_id, behind.name, behind.address) == (ID, "checkout", "ipv4:127.0.0.1:1")
    assert (behind.subject, behind.applied_revision) == ("jwt:cache", 5)
    assert behind.watch_time.ToDatetime(UTC) == since
