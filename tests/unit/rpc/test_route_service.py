"""What the methods of RouteService ask of the use cases, and what they count."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.errors import HistoryCompacted, PointsmanError, RouteNotFound, StoreUnavailable
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.bulk_store import Imported
from pointsman_server.ports.store import Outcome, RouteQuery
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.rpc.route_service import RouteServicer
from pointsman_server.telemetry.metrics import Metrics
from tests.support.call_context import CallContext
from tests.support.changes import make_change
from tests.support.fakes import EPOCH, MemoryStore
from tests.support.receipts import usage_methods
from tests.support.servicers import NO_TRAFFIC

KEY = RouteKey("team-a", "payments", "prod", "v1")
MESSAGE = route_pb2.RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
CONTEXT = cast("Any", None)
EXACT = pb.CONSISTENCY_FULLY_CONSISTENT


class Recorder:
    """Stands for a use case: returns ``result`` or raises it, and records the arguments of its calls."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls.append((arguments, options))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Service:
    """The service on recorders."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.reads = ReadCounts()
        self.store = MemoryStore()
        self.route = self.store.put(KEY)
        self.answer = Answer(Snapshot(KEY, self.route, 7, EPOCH), Source.REDIS)
        self.resolve, self.resolve_many = Recorder(self.answer), Recorder([self.answer])
        self.floor = Recorder(5)
        self.write = Recorder(Outcome(self.route, 9))
        self.import_ = Recorder(Imported(1, 2, 3, 4, 5, 6))
        committer = SimpleNamespace(
            **dict.fromkeys(("create", "update", "activate", "deactivate", "delete"), self.write)
        )
        self.servicer = RouteServicer(
            cast("Any", SimpleNamespace(resolve=self.resolve, resolve_many=self.resolve_many)),
            cast("Any", SimpleNamespace(floor=self.floor)),
            cast("Any", committer),
            cast("Any", SimpleNamespace(import_=self.import_)),
            self.store,
            cast("Any", None),
            cast("Any", None),
            usage_methods(self.reads),
            WriteMeter(self.metrics),
            metrics=self.metrics,
            **NO_TRAFFIC,
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def service() -> Service:
    begin_call(cast("Any", CallContext(("x-request-id", "mine"))))
    return Service()


WRITES: list[tuple[str, Callable[[RouteServicer], Any]]] = [
    ("create", lambda servicer: servicer.Create(pb.CreateRequest(key=MESSAGE, url="https://a.internal"), CONTEXT)),
    ("update", lambda servicer: servicer.Update(pb.UpdateRequest(key=MESSAGE, url="https://a.internal"), CONTEXT)),
    ("activate", lambda servicer: servicer.Activate(pb.ActivateRequest(key=MESSAGE), CONTEXT)),
    ("deactivate", lambda servicer: servicer.Deactivate(pb.DeactivateRequest(key=MESSAGE), CONTEXT)),
    ("delete", lambda servicer: servicer.Delete(pb.DeleteRequest(key=MESSAGE), CONTEXT)),
]
writes = pytest.mark.parametrize(("action", "write"), WRITES, ids=[action for action, _ in WRITES])


@pytest.mark.parametrize(
    ("request_", "floor", "exact"),
    [
        (pb.ResolveRequest(key=MESSAGE), 0, False),
        (pb.ResolveRequest(key=MESSAGE, min_revision=3), 3, False),
        (pb.ResolveRequest(key=MESSAGE, min_revision=3, epoch=EPOCH), 5, False),
        (pb.ResolveRequest(key=MESSAGE, epoch=EPOCH), 0, False),
        (pb.ResolveRequest(key=MESSAGE, consistency=EXACT), 0, True),
    ],
    ids=["any", "revision", "revision token", "epoch alone", "exact"],
)
async def test_a_resolve_asks_for_the_revision_and_consistency_of_its_request(
    service: Service, request_: pb.ResolveRequest, floor: int, exact: bool
) -> None:
    response = await service.servicer.Resolve(request_, CONTEXT)
    ((arguments, options),) = service.resolve.calls

    assert arguments == (KEY, floor)
    assert options["fully_consistent"] is exact
    assert response.route.url == service.route.url
    assert response.provenance.as_of_revision == 7


async def test_only_a_revision_of_an_epoch_is_looked_up(service: Service) -> None:
    await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE, min_revision=3), CONTEXT)
    assert service.floor.calls == []
    await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE, min_revision=3, epoch=EPOCH), CONTEXT)
    assert service.floor.calls == [((3, EPOCH), {})]


@pytest.mark.parametrize(("route", "outcome"), [("active", "active"), ("inactive", "inactive"), ("absent", "absent")])
async def test_resolves_are_counted_by_outcome(service: Service, route: str, outcome: str) -> None:
    stored = None if route == "absent" else service.store.put(KEY, active=route == "active")
    service.resolve.result = Answer(Snapshot(KEY, stored, 7, EPOCH), Source.POSTGRES)
    if outcome == "active":
        await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE), CONTEXT)
    else:
        with pytest.raises(PointsmanError):
            await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE), CONTEXT)

    assert service.value("pointsman_resolve_requests_total", outcome=outcome) == 1
    assert service.value("pointsman_resolve_seconds_count", source="POSTGRES") == 1


async def test_a_resolve_that_fails_is_counted_and_not_timed(service: Service) -> None:
    service.resolve.result = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE), CONTEXT)

    assert service.value("pointsman_resolve_requests_total", outcome="failed") == 1
    assert all(
        service.value("pointsman_resolve_seconds_count", source=source) == 0
        for source in ("LOCAL", "REDIS", "POSTGRES")
    )


async def test_a_batch_has_a_result_for_each_key_in_their_order(service: Service) -> None:
    other = route_pb2.RouteKey(tenant="team-a", service="payments", env="prod", version="v2")
    service.resolve_many.result = [StoreUnavailable(), service.answer]
    response = await service.servicer.BatchResolve(pb.BatchResolveRequest(keys=[other, MESSAGE]), CONTEXT)

    assert [result.key.version for result in response.results] == ["v2", "v1"]
    assert [result.WhichOneof("answer") for result in response.results] == ["status", "route"]
    assert service.value("pointsman_resolve_requests_total", outcome="failed") == 1
    assert service.value("pointsman_resolve_requests_total", outcome="active") == 1


@writes
@pytest.mark.parametrize(
    ("result", "outcome"),
    [(None, "ok"), (StoreUnavailable(), "failed"), (RouteNotFound("k", 1, ""), "refused"), (RuntimeError(), "failed")],
    ids=["ok", "retry later", "final", "bug"],
)
async def test_writes_are_counted_by_action_and_outcome(
    service: Service, action: str, write: Callable[[RouteServicer], Any], result: Exception | None, outcome: str
) -> None:
    if result is None:
        await write(service.servicer)
    else:
        service.write.result = result
        with pytest.raises(type(result)):
            await write(service.servicer)

    assert service.value("pointsman_write_requests_total", action=action, outcome=outcome) == 1
    others = {"ok", "refused", "failed"} - {outcome}
    assert {service.value("pointsman_write_requests_total", action=action, outcome=other) for other in others} == {0}
    assert service.value("pointsman_write_seconds_count", action=action) == 1


@pytest.mark.parametrize("write", [write for _, write in WRITES], ids=[action for action, _ in WRITES])
async def test_a_write_passes_the_key_and_the_callers_name(
    service: Service, write: Callable[[RouteServicer], Any]
) -> None:
    await write(service.servicer)
    (((command, intent), _),) = service.write.calls

    assert command.key == KEY
    assert intent.actor == "anonymous"


async def test_the_revisions_that_are_revision_tokens_are_those_of_the_outcome(service: Service) -> None:
    assert (await service.servicer.Activate(pb.ActivateRequest(key=MESSAGE), CONTEXT)).revision == 9
    assert (await service.servicer.Delete(pb.DeleteRequest(key=MESSAGE), CONTEXT)).revision == 9


async def test_the_routes_of_an_import_are_counted_by_outcome(service: Service) -> None:
    route = pb.ImportedRoute(key=MESSAGE, url="https://a.internal")
    response = await service.servicer.Import(pb.ImportRequest(routes=[route]), CONTEXT)

    assert (response.created, response.updated, response.unchanged, response.revision) == (1, 2, 3, 6)
    counted = {name: service.value("pointsman_imported_routes_total", outcome=name) for name in OUTCOMES}
    assert counted == {"created": 1, "updated": 2, "unchanged": 3}
    assert service.value("pointsman_write_requests_total", action="import", outcome="ok") == 1


OUTCOMES = ("created", "updated", "unchanged")


async def test_get_returns_inactive_routes_from_the_store(service: Service) -> None:
    route = service.store.put(KEY, active=False)
    service.resolve.result = Answer(Snapshot(KEY, route, 7, EPOCH), Source.POSTGRES)
    response = await service.servicer.Get(pb.GetRequest(key=MESSAGE), CONTEXT)

    assert not response.route.active
    assert service.resolve.calls == [((KEY,), {"fully_consistent": True})]


async def test_get_of_an_absent_route_says_as_of_when(service: Service) -> None:
    service.resolve.result = Answer(Snapshot(KEY, None, 7, EPOCH), Source.POSTGRES)
    with pytest.raises(RouteNotFound) as caught:
        await service.servicer.Get(pb.GetRequest(key=MESSAGE), CONTEXT)

    assert caught.value.metadata == {"key": str(KEY), "revision": "7", "epoch": EPOCH}


async def test_lists_read_the_store(service: Service) -> None:
    routes = await service.servicer.List(pb.ListRequest(tenant="team-a"), CONTEXT)
    others = await service.servicer.List(pb.ListRequest(tenant="team-b"), CONTEXT)

    assert [route.key for route in routes.routes] == [MESSAGE]
    assert not others.routes


async def test_get_and_list_as_of_a_revision_read_the_history(service: Service) -> None:
    was = service.store.put(KEY, "https://was.internal")
    history = SimpleNamespace(
        load_as_of=Recorder([Snapshot(KEY, was, 3, EPOCH)]), list_routes_as_of=Recorder([was, was]), revision_at=None
    )
    service.servicer._history = cast("Any", history)
    got = await service.servicer.Get(pb.GetRequest(key=MESSAGE, as_of=route_pb2.AsOf(revision=3)), CONTEXT)
    request = pb.ListRequest(page_size=1, as_of=route_pb2.AsOf(revision=3))
    listed = await service.servicer.List(request, CONTEXT)
    request.page_token = listed.next_page_token
    await service.servicer.List(request, CONTEXT)

    assert (got.route.url, got.as_of_revision) == ("https://was.internal", 3)
    assert ([route.url for route in listed.routes], listed.as_of_revision) == (["https://was.internal"], 3)
    queries = [arguments for arguments, _ in history.list_routes_as_of.calls]
    assert queries == [(RouteQuery(limit=2), 3), (RouteQuery(limit=2, after=KEY), 3)]
    assert service.resolve.calls == []


async def test_get_says_as_of_when(service: Service) -> None:
    assert (await service.servicer.Get(pb.GetRequest(key=MESSAGE), CONTEXT)).as_of_revision == 7


@pytest.mark.parametrize(("after", "refused"), [(0, False), (4, True), (5, False), (6, False)])
async def test_changes_after_a_revision_that_is_compacted_are_refused(
    service: Service, after: int, refused: bool
) -> None:
    """Without a bound, what is kept is listed."""
    service.store.compacted_revision = 5
    request = pb.ListChangesRequest(after_revision=after)
    if refused:
        with pytest.raises(HistoryCompacted) as caught:
            await service.servicer.ListChanges(request, CONTEXT)
        assert caught.value.metadata == {"revision": "4", "oldest_revision": "5"}
    else:
        await service.servicer.ListChanges(request, CONTEXT)


async def test_a_page_whose_changes_were_compacted_since_the_one_before_is_refused(service: Service) -> None:
    service.store.changes = [make_change(revision) for revision in (2, 3, 4)]
    request = pb.ListChangesRequest(after_revision=1, page_size=1)
    request.page_token = (await service.servicer.ListChanges(request, CONTEXT)).next_page_token
    service.store.compacted_revision = 2
    request.page_token = (await service.servicer.ListChanges(request, CONTEXT)).next_page_token
    service.store.compacted_revision = 4
    with pytest.raises(HistoryCompacted):
        await service.servicer.ListChanges(request, CONTEXT)


async def test_reads_of_routes_are_counted_for_their_caller(service: Service) -> None:
    absent = Answer(Snapshot(KEY._replace(version="v2"), None, 7, EPOCH), Source.REDIS)
    inactive = Answer(Snapshot(KEY, service.store.put(KEY, active=False), 7, EPOCH), Source.REDIS)

    await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE), CONTEXT)
    service.resolve.result = inactive
    with pytest.raises(PointsmanError):
        await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE), CONTEXT)
    for nothing in (absent, StoreUnavailable()):
        service.resolve.result = nothing
        with pytest.raises(PointsmanError):
            await service.servicer.Resolve(pb.ResolveRequest(key=MESSAGE), CONTEXT)
    service.resolve_many.result = [service.answer, absent, StoreUnavailable()]
    other = route_pb2.RouteKey(tenant="team-a", service="payments", env="prod", version="v2")
    await service.servicer.BatchResolve(pb.BatchResolveRequest(keys=[MESSAGE, other, other]), CONTEXT)

    assert service.reads.take() == {"anonymous": {key_to_bytes(KEY): 3}}
