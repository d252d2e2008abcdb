"""Receipts and usage across servers: two of them on one PostgreSQL and one Redis, on both transports."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.propagation_pb2 import GetPropagationRequest, GetPropagationResponse, ReportProgressRequest
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.usage_pb2 import GetUsageRequest, ReportUsageRequest
from pointsman.v1.watch_pb2 import Checkpoint, ResumeToken, Watcher, WatchRequest
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import get_metric
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

SECONDS = 60.0


@dataclass(frozen=True)
class Pair:
    """Two servers, and a stub of each."""

    servers: tuple[RunningServer, RunningServer]
    stubs: tuple[Any, Any]


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def pair(request: pytest.FixtureRequest, engines: Any, template_database: str) -> Iterator[Pair]:
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    with fresh_database(template_database) as database_url:
        chosen = settings(transport=request.param, database_url=database_url, redis_url=redis_url)
        with serving(chosen) as one, serving(chosen) as two, _stub(one) as first, _stub(two) as second:
            yield Pair((one, two), (first, second))


@contextmanager
def _stub(server: RunningServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.address) as channel:
        yield RouteServiceStub(channel)


class Client:
    """A watcher: it remembers what it would have applied, and reports it when it is asked, unless it hangs."""

    def __init__(self, watching: Any, reporting: Any, tenant: str, number: int, *, hangs: bool = False) -> None:
        self.id = f"watcher-of-{tenant}-{number:08d}"
        self.asked: list[Checkpoint] = []
        self._reporting, self._tenant, self._hangs = reporting, tenant, hangs
        watcher = Watcher(id=self.id, name=f"checkout {number}")
        self._stream = watching.Watch(WatchRequest(tenant=tenant, watcher=watcher), timeout=SECONDS)
        self._current = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._current.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.cancel()
        self._thread.join(SECONDS)

    def report(self, applied: ResumeToken) -> None:
        request = ReportProgressRequest(watcher_id=self.id, applied=applied, tenant=self._tenant)
        self._reporting.ReportProgress(request, timeout=SECONDS)

    def _run(self) -> None:
        try:
            for event in self._stream:
                if event.HasField("checkpoint"):
                    self._current.set()
                    if event.checkpoint.report_progress:
                        self.asked.append(event.checkpoint)
                        if not self._hangs:
                            self.report(event.checkpoint.as_of)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.CANCELLED


def create(stub: Any, key: RouteKey) -> int:
    return int(stub.Create(pb.CreateRequest(key=key, url="https://one.internal")).route.revision)


def ask(stub: Any, revision: int, **of: str) -> GetPropagationResponse:
    found: GetPropagationResponse = stub.GetPropagation(GetPropagationRequest(revision=revision, **of))
    return found


def counts(stub: Any, revision: int, **of: str) -> Callable[[], tuple[int, int]]:
    def found() -> tuple[int, int]:
        response = ask(stub, revision, **of)
        assert response.all_servers
        return response.watcher_count, response.applied_count

    return found


def test_both_servers_know_who_has_applied_a_revision_wherever_it_was_reported(pair: Pair, key: RouteKey) -> None:
    first, second = pair.stubs
    with Client(first, first, key.tenant, 1), Client(second, first, key.tenant, 2) as other:
        revision = create(second, key)
        for stub in pair.stubs:
            assert eventually(lambda: counts(stub, revision, tenant=key.tenant)() == (2, 2))  # noqa: B023
        assert all(checkpoint.as_of.revision >= revision for checkpoint in other.asked)


def test_who_hangs_is_named_until_it_goes_on(pair: Pair, key: RouteKey) -> None:
    first, second = pair.stubs
    with Client(first, first, key.tenant, 1), Client(second, first, key.tenant, 2, hangs=True) as hung:
        revision = create(first, key)
        assert eventually(lambda: counts(first, revision, tenant=key.tenant)() == (2, 1) and hung.asked)

        [behind] = ask(first, revision, tenant=key.tenant).behind
        assert (behind.watcher_id, behind.name, behind.subject) == (hung.id, "checkout 2", "anonymous")
        assert behind.address.startswith("ipv4:127.0.0.1:")
        assert behind.applied_revision < revision
        assert behind.HasField("watch_time")

        hung.report(hung.asked[-1].as_of)
        assert counts(first, revision, tenant=key.tenant)() == (2, 2)


def test_a_watcher_that_has_gone_does_not_count(pair: Pair, key: RouteKey) -> None:
    first, second = pair.stubs
    revision = create(first, key)
    with Client(first, first, key.tenant, 1):
        assert eventually(lambda: counts(second, revision, tenant=key.tenant)() == (1, 1))
    assert eventually(lambda: counts(second, revision, tenant=key.tenant)() == (0, 0))


def test_a_server_that_stops_takes_its_watchers_with_it(pair: Pair, key: RouteKey) -> None:
    first, _ = pair.stubs
    with serving(pair.servers[0].app.settings) as third, _stub(third) as stub, Client(stub, stub, key.tenant, 1):
        revision = create(first, key)
        assert eventually(lambda: counts(first, revision, tenant=key.tenant)() == (1, 1))
    assert counts(first, revision, tenant=key.tenant)() == (0, 0)


def test_nobody_is_asked_while_nobody_wants_to_know(pair: Pair, key: RouteKey) -> None:
    first, second = pair.stubs
    with Client(first, first, key.tenant, 1) as client:
        create(first, key)
        assert eventually(lambda: counts(second, 1, tenant=key.tenant)() == (1, 1))
        asked = len(client.asked)
        assert not eventually(lambda: len(client.asked) > asked, patience=2.0)


def test_a_revision_that_does_not_exist_cannot_be_reported(pair: Pair, key: RouteKey) -> None:
    first, _ = pair.stubs
    with Client(first, first, key.tenant, 1, hangs=True) as client:
        revision = create(first, key)
        assert eventually(lambda: ask(first, revision, tenant=key.tenant) and client.asked)
        applied = client.asked[-1].as_of
        applied.revision += 1_000_000
        with pytest.raises(grpc.RpcError) as refused:
            client.report(applied)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "applied.revision" in (refused.value.details() or "")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetPropagation", GetPropagationRequest()),
        ("GetPropagation", GetPropagationRequest(revision=-1)),
        ("GetPropagation", GetPropagationRequest(revision=1, tenant="a/b")),
        ("ReportProgress", ReportProgressRequest(watcher_id="short", applied=ResumeToken(epoch="e", revision=1))),
        ("ReportProgress", ReportProgressRequest(watcher_id="w" * 16)),
        ("ReportProgress", ReportProgressRequest(watcher_id="w" * 16, applied=ResumeToken(revision=1))),
        ("GetUsage", GetUsageRequest()),
        ("GetUsage", GetUsageRequest(key=RouteKey(tenant="a"))),
        ("ReportUsage", ReportUsageRequest()),
        ("ReportUsage", ReportUsageRequest(reads=[ReportUsageRequest.Read(count=1)])),
    ],
)
def test_a_malformed_request_is_refused(pair: Pair, method: str, request_: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        getattr(pair.stubs[0], method)(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_reads_of_all_servers_and_near_caches_are_known(pair: Pair, key: RouteKey) -> None:
    first, second = pair.stubs
    create(first, key)
    for stub in pair.stubs:
        for _ in range(3):
            stub.Resolve(pb.ResolveRequest(key=key))
        stub.BatchResolve(pb.BatchResolveRequest(keys=[key, key]))
    reported = second.ReportUsage(ReportUsageRequest(reads=[ReportUsageRequest.Read(key=key, count=1000)]))
    assert reported.interval.seconds > 0

    def known() -> bool:
        found = [stub.GetUsage(GetUsageRequest(key=key)) for stub in pair.stubs]
        return all(
            [(reader.subject, reader.read_count) for reader in usage.readers] == [("anonymous", 1010)]
            and (usage.window.seconds, usage.all_servers) == (86_400, True)
            for usage in found
        )

    assert eventually(known)


def test_a_key_that_nobody_has_read(pair: Pair, key: RouteKey) -> None:
    create(pair.stubs[0], key)
    with pytest.raises(grpc.RpcError):
        pair.stubs[0].Resolve(pb.ResolveRequest(key=RouteKey(**_parts(key) | {"version": "absent"})))
    for version in ("v1", "absent"):
        asked = RouteKey(**_parts(key) | {"version": version})
        assert not pair.stubs[0].GetUsage(GetUsageRequest(key=asked)).readers


def _parts(key: RouteKey) -> dict[str, str]:
    return {part: getattr(key, part) for part in ("tenant", "service", "env", "version")}


def test_reports_and_watchers_are_counted(pair: Pair, key: RouteKey) -> None:
    first, server = pair.stubs[0], pair.servers[0]
    before = get_metric(server.http, "pointsman_watch_reports_total")
    with Client(first, first, key.tenant, 1):
        revision = create(first, key)
        assert eventually(lambda: counts(first, revision, tenant=key.tenant)() == (1, 1))
    assert get_metric(server.http, "pointsman_watch_reports_total") > before
