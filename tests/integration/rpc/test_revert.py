"""Revert, on both transports: what a change set or a range of revisions did is undone exactly, or the call refuses."""

import concurrent.futures
import itertools
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import (
    CHANGE_KIND_CREATED,
    CHANGE_KIND_DELETED,
    CHANGE_KIND_TRAFFIC_SET,
    CHANGE_KIND_UPDATED,
    RouteKey,
)
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficRequest, ListTrafficRequest, SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.adapters.postgres.history.compaction import HistoryCompaction, HistoryPlan
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import KeyDraft
from tests.support.engines import fresh_database, fresh_redis
from tests.support.refusals import refused
from tests.support.servers import RunningServer, serving, settings

URL, NEW = "https://old.internal:8443", "https://new.internal:8443"
_tenants = itertools.count(1)


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses."""
    return f"reverted-{next(_tenants)}"


def key(tenant: str, version: str = "v1") -> RouteKey:
    return RouteKey(tenant=tenant, service="payments", env="prod", version=version)


def create(tenant: str, version: str = "v1", *, active: bool = True) -> pb.Mutation:
    request = pb.CreateRequest(key=key(tenant, version), url=URL, labels={"tier": "gold"}, active=active)
    return pb.Mutation(create=request)


def update(tenant: str, version: str = "v1", url: str = NEW) -> pb.Mutation:
    return pb.Mutation(update=pb.UpdateRequest(key=key(tenant, version), url=url, labels=pb.Labels()))


def activate(tenant: str, version: str) -> pb.Mutation:
    return pb.Mutation(activate=pb.ActivateRequest(key=key(tenant, version), exclusive=True))


def delete(tenant: str, version: str) -> pb.Mutation:
    return pb.Mutation(delete=pb.DeleteRequest(key=key(tenant, version)))


def divide(tenant: str, **weights: int) -> pb.Mutation:
    targets = [TrafficTarget(version=version, weight=weight) for version, weight in weights.items()]
    request = SetTrafficRequest(tenant=tenant, service="payments", env="prod", targets=targets)
    return pb.Mutation(set_traffic=request)


def commit(stub: RouteServiceStub, *mutations: pb.Mutation, reason: str = "") -> int:
    return stub.Commit(pb.CommitRequest(mutations=mutations, reason=reason)).change_set_id


def content(stub: RouteServiceStub, tenant: str) -> Mapping[str, Any]:
    """Return what a revert brings back."""
    routes = stub.List(pb.ListRequest(tenant=tenant)).routes
    traffic = stub.ListTraffic(ListTrafficRequest(tenant=tenant)).traffic
    return {each.key.version: (each.url, each.active, dict(each.labels)) for each in routes} | {
        "traffic": [
            ([(target.version, target.weight) for target in each.targets], [(s.version, s.size) for s in each.slices])
            for each in traffic
        ]
    }


def test_a_change_set_is_undone_by_a_new_one_which_the_history_tells(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v2"), create(tenant, "v1", active=False), divide(tenant, v2=5_000, v1=5_000))
    before = content(grpc_stub, tenant)
    done = commit(
        grpc_stub,
        create(tenant, "v3"),
        update(tenant, "v2"),
        divide(tenant, v3=10_000),
        activate(tenant, "v3"),
        delete(tenant, "v1"),
    )
    after = content(grpc_stub, tenant)

    response = grpc_stub.Revert(pb.RevertRequest(change_set_id=done, reason="it was wrong"))

    assert content(grpc_stub, tenant) == before
    first = response.change_set_id
    assert [(each.revision - first, each.kind, each.key.version) for each in response.changes] == [
        (0, CHANGE_KIND_CREATED, "v1"),
        (1, CHANGE_KIND_UPDATED, "v2"),
        (2, CHANGE_KIND_TRAFFIC_SET, ""),
        (3, CHANGE_KIND_DELETED, "v3"),
    ]
    assert {(each.change_set_id, each.change_set_size, each.reason) for each in response.changes} == {
        (first, 4, "it was wrong")
    }
    assert (response.revision, response.omitted_change_count) == (first + 3, 0)
    told = grpc_stub.ListChanges(pb.ListChangesRequest(tenant=tenant, after_revision=first - 1)).changes
    assert list(told) == list(response.changes)

    # A revert is undone like everything else.
    grpc_stub.Revert(pb.RevertRequest(change_set_id=first))
    assert content(grpc_stub, tenant) == after


def test_readers_see_it_at_once(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"))
    done = commit(grpc_stub, update(tenant, "v1"))
    request = pb.ResolveRequest(key=key(tenant))
    assert grpc_stub.Resolve(request).route.url == NEW

    grpc_stub.Revert(pb.RevertRequest(change_set_id=done))

    assert grpc_stub.Resolve(request).route.url == URL


def test_a_range_of_revisions_is_undone_together(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"))
    before = content(grpc_stub, tenant)
    first = grpc_stub.Update(pb.UpdateRequest(key=key(tenant), url=NEW)).route.revision
    grpc_stub.Create(pb.CreateRequest(key=key(tenant, "v2"), url=URL))
    last = grpc_stub.Activate(pb.ActivateRequest(key=key(tenant, "v2"), exclusive=True)).revision

    response = grpc_stub.Revert(pb.RevertRequest(first_revision=first, last_revision=last))

    assert content(grpc_stub, tenant) == before
    assert [each.kind for each in response.changes] == [CHANGE_KIND_UPDATED, CHANGE_KIND_DELETED]


def test_an_import_is_a_change_set(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"))
    before = content(grpc_stub, tenant)
    wanted = [pb.ImportedRoute(key=key(tenant, f"v{number}"), url=NEW) for number in (1, 2)]
    imported = grpc_stub.Import(pb.ImportRequest(routes=wanted))

    grpc_stub.Revert(pb.RevertRequest(change_set_id=imported.first_revision))

    assert content(grpc_stub, tenant) == before


def test_what_was_changed_since_is_named_with_who_when_and_the_revision_and_forced_only_if_asked(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"), create(tenant, "v2"))
    before = content(grpc_stub, tenant)
    done = commit(grpc_stub, update(tenant, "v1"), update(tenant, "v2"), divide(tenant, v1=10_000))
    request = pb.UpdateRequest(key=key(tenant), url="https://newer.internal", reason="an urgent fix")
    moved = grpc_stub.Update(request).route.revision
    present = content(grpc_stub, tenant)

    refusal = refused(grpc_stub.Revert, pb.RevertRequest(change_set_id=done))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "CHANGED_SINCE")
    assert refusal.metadata == {"key": f"{tenant}/payments/prod/v1", "revision": str(moved), "count": "1"}
    (told,) = refusal.fields.items()
    assert told[0] == f"{tenant}/payments/prod/v1"
    assert re.fullmatch(
        rf"the route was changed by anonymous at \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ, revision {moved}: an urgent fix",
        told[1],
    )
    assert told[1] in refusal.message
    assert content(grpc_stub, tenant) == present

    grpc_stub.Revert(pb.RevertRequest(change_set_id=done, force=True))
    assert content(grpc_stub, tenant) == before


def test_what_is_gone_since_is_named_too(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"))
    done = commit(grpc_stub, update(tenant, "v1"), divide(tenant, v1=10_000))
    request = DeleteTrafficRequest(tenant=tenant, service="payments", env="prod")
    grpc_stub.DeleteTraffic(request)
    gone = grpc_stub.Delete(pb.DeleteRequest(key=key(tenant))).revision

    refusal = refused(grpc_stub.Revert, pb.RevertRequest(change_set_id=done))

    # There was no traffic before, and there is none now.
    assert list(refusal.fields) == [f"{tenant}/payments/prod/v1"]
    assert "the route was deleted by anonymous at " in refusal.message
    assert f"revision {gone}" in refusal.message


def test_a_dry_run_answers_what_would_be_done(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"))
    done = commit(grpc_stub, update(tenant, "v1"), create(tenant, "v2"))
    present = content(grpc_stub, tenant)

    dry = grpc_stub.Revert(pb.RevertRequest(change_set_id=done, dry_run=True))
    assert content(grpc_stub, tenant) == present
    wet = grpc_stub.Revert(pb.RevertRequest(change_set_id=done))

    assert dry.revision == wet.revision - 2 == dry.change_set_id - 1
    assert dry.change_set_id == wet.change_set_id
    assert [(each.revision, each.kind, each.key) for each in dry.changes] == [
        (each.revision, each.kind, each.key) for each in wet.changes
    ]


def test_a_retry_is_answered_the_same_and_changes_nothing(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"))
    done = commit(grpc_stub, update(tenant, "v1"), create(tenant, "v2"))
    request = pb.RevertRequest(change_set_id=done, request_id=str(uuid.uuid4()))
    first = grpc_stub.Revert(request)
    grpc_stub.Update(pb.UpdateRequest(key=key(tenant), url="https://newer.internal"))
    present = content(grpc_stub, tenant)

    assert grpc_stub.Revert(request) == first
    assert content(grpc_stub, tenant) == present
    request.force = True
    assert refused(grpc_stub.Revert, request).reason == "REQUEST_ID_REUSED"


def test_what_is_as_before_already_is_no_change(grpc_stub, tenant):
    commit(grpc_stub, create(tenant, "v1"))
    done = commit(grpc_stub, update(tenant, "v1"))
    first = grpc_stub.Revert(pb.RevertRequest(change_set_id=done))

    again = grpc_stub.Revert(pb.RevertRequest(change_set_id=done))

    assert (again.change_set_id, list(again.changes), again.omitted_change_count) == (0, [], 0)
    assert again.revision >= first.revision


def test_a_revision_inside_a_set_is_refused_with_the_set(grpc_stub, tenant):
    done = commit(grpc_stub, create(tenant, "v1"), create(tenant, "v2"), create(tenant, "v3"))

    refusal = refused(grpc_stub.Revert, pb.RevertRequest(change_set_id=done + 1))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert f"the change set {done}, of the revisions to {done + 2}" in refusal.fields["change_set_id"]


def test_what_does_not_exist_yet_or_is_of_another_history_is_refused(grpc_stub, tenant):
    done = commit(grpc_stub, create(tenant, "v1"))
    epoch = grpc_stub.ListChanges(pb.ListChangesRequest(tenant=tenant)).changes[0].epoch

    refusal = refused(grpc_stub.Revert, pb.RevertRequest(change_set_id=10**15))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")
    refusal = refused(grpc_stub.Revert, pb.RevertRequest(change_set_id=done, epoch=str(uuid.uuid4())))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "EPOCH_CHANGED")
    assert refusal.metadata["epoch"] == epoch

    grpc_stub.Revert(pb.RevertRequest(change_set_id=done, epoch=epoch))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"change_set_id": 1, "first_revision": 1, "last_revision": 2},
        {"first_revision": 2, "last_revision": 1},
        {"last_revision": 1},
        {"first_revision": 1, "last_revision": 10_001},
        {"change_set_id": -1},
    ],
)
def test_what_to_undo_is_said_in_one_way(grpc_stub, fields):
    assert refused(grpc_stub.Revert, pb.RevertRequest(**fields)).reason == "INVALID_FIELD"


def test_a_version_that_traffic_names_now_stays(grpc_stub, tenant):
    done = commit(grpc_stub, create(tenant, "v1"))
    commit(grpc_stub, divide(tenant, v1=10_000))

    refusal = refused(grpc_stub.Revert, pb.RevertRequest(change_set_id=done, force=True))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTE_IN_TRAFFIC")
    assert refusal.metadata["key"] == f"{tenant}/payments/prod/v1"


def test_changes_that_are_not_kept_are_not_undone(grpc_server, grpc_stub, tenant):
    gone = commit(grpc_stub, create(tenant, "v1"), create(tenant, "v2"))
    kept = commit(grpc_stub, update(tenant, "v1"))
    _compact(grpc_server, kept - 1)

    for request in (pb.RevertRequest(change_set_id=gone), pb.RevertRequest(first_revision=gone, last_revision=kept)):
        refusal = refused(grpc_stub.Revert, request)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED")
        assert refusal.metadata == {"revision": str(gone), "oldest_revision": str(kept)}
    grpc_stub.Revert(pb.RevertRequest(change_set_id=kept))


def _compact(server: RunningServer, revision: int) -> None:
    async def compact() -> None:
        plan = HistoryPlan(revision, revision)
        assert [rows async for rows in HistoryCompaction(server.app.database).run(plan)]

    server.run(compact())


def test_of_a_revert_and_writes_at_once_each_is_whole_or_refused(grpc_stub, tenant):
    """Writers change the same routes meanwhile: a revert restores all of them, or none and says so."""
    versions = [f"v{number}" for number in range(8)]
    commit(grpc_stub, *(create(tenant, version) for version in versions))
    for attempt in range(10):
        done = commit(grpc_stub, *(update(tenant, version, f"{NEW}/{attempt}") for version in versions))
        start = threading.Barrier(3)

        def write(version: str, attempt: int = attempt, start: threading.Barrier = start) -> int:
            start.wait()
            url = f"https://other.internal/{attempt}"
            return grpc_stub.Update(pb.UpdateRequest(key=key(tenant, version), url=url)).route.revision

        def revert(done: int = done, start: threading.Barrier = start) -> pb.RevertResponse | None:
            start.wait()
            try:
                return grpc_stub.Revert(pb.RevertRequest(change_set_id=done))
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED
                return None

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            writes = [pool.submit(write, version) for version in ("v0", "v7")]
            reverted = pool.submit(revert).result()
            written = [each.result() for each in writes]

        urls = {each.key.version: each.url for each in grpc_stub.List(pb.ListRequest(tenant=tenant)).routes}
        if reverted is None:
            # One of the writes was first.
            assert all(urls[version] == f"{NEW}/{attempt}" for version in versions[1:-1])
        else:
            assert len(reverted.changes) == len(versions)
            assert all(revision > reverted.revision for revision in written)
            assert len({urls[version] for version in versions[1:-1]}) == 1
            assert urls["v1"] != f"{NEW}/{attempt}"


# Who may


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def guarded(request: pytest.FixtureRequest, engines: Any, template_database: str) -> Iterator[RunningServer]:
    """A server that takes API keys."""
    with fresh_database(template_database) as url:
        chosen = settings(
            transport=request.param,
            database_url=url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            api_keys=True,
            access_refresh_seconds=0.1,
        )
        with serving(chosen) as server:
            yield server


@pytest.fixture(scope="module")
def stub(guarded: RunningServer) -> Iterator[RouteServiceStub]:
    with grpc.insecure_channel(guarded.address) as channel:
        yield RouteServiceStub(channel)


def caller(server: RunningServer, name: str, *grants: str) -> dict[str, Any]:
    """Make a key, and return the options of calls with it."""
    minted = mint()
    draft = KeyDraft(name, tuple(map(parse_grant, grants)), "ann", None)
    server.run(PostgresApiKeyStore(server.app.database).create(draft, minted))
    server.run(server.app.access.api_keys.known.renew())
    return {"metadata": (("authorization", f"Bearer {minted.text}"),)}


def test_a_caller_must_be_allowed_to_write_everything_that_is_changed_back(guarded, stub):
    admin = caller(guarded, "admin", "admin:*")
    done = stub.Commit(pb.CommitRequest(mutations=[create("team-a"), create("team-b")]), **admin).change_set_id
    request = pb.RevertRequest(change_set_id=done)

    stranger = refused(stub.Revert, request, **caller(guarded, "stranger", "writer:team-a"))
    assert (stranger.code, stranger.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
    # It says nothing of a tenant that the caller may know nothing of.
    assert stranger.metadata == {"permission": "routes.write", "tenant": "", "env": ""}
    assert "team-b" not in str(stranger)

    auditor = refused(stub.Revert, request, **caller(guarded, "auditor", "admin:team-a", "auditor:team-b"))
    assert auditor.metadata == {"permission": "routes.write", "tenant": "team-b", "env": "prod"}

    both = caller(guarded, "both", "writer:team-a", "writer:team-b")
    response = stub.Revert(request, **both)
    assert {(each.kind, each.actor) for each in response.changes} == {(CHANGE_KIND_DELETED, "key:both")}
