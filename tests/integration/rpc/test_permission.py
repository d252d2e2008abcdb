"""A denied caller gets the same answer whatever exists, on both transports; with real keys and a real policy."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.propagation_pb2 import GetPropagationRequest, ReportProgressRequest
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.traffic_methods_pb2 import (
    DeleteTrafficRequest,
    GetTrafficRequest,
    ListTrafficRequest,
    SetTrafficRequest,
)
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman.v1.usage_pb2 import GetUsageRequest, ReportUsageRequest
from pointsman.v1.watch_pb2 import ResumeToken, Watcher, WatchRequest
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.adapters.postgres.connection import Statement, Step
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import KeyDraft
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import get_metric
from tests.support.refusals import Refusal, refused
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
THERE = RouteKey(tenant="team-b", service="payments", env="prod", version="v1")
NOT_THERE = RouteKey(tenant="team-b", service="payments", env="prod", version="v9")
OURS = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
DAY = timedelta(days=1)

POLICY = """
[[grant]]
subjects = ["key:policed-*"]
roles = ["reader"]
tenants = ["team-a"]
"""


@dataclass
class Guarded:
    """A server that checks callers, and the file of its policy."""

    server: RunningServer
    policy: Path

    def make(self, name: str, *grants: str) -> str:
        """Make a key, and give its text."""
        minted = mint()
        draft = KeyDraft(name, tuple(map(parse_grant, grants)), "ann", DAY)
        self.server.run(self.store.create(draft, minted))
        # It would hear of the key by itself, within the interval.
        self.server.run(self.server.app.access.api_keys.known.renew())
        return minted.text

    @property
    def store(self) -> PostgresApiKeyStore:
        return PostgresApiKeyStore(self.server.app.database)


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def guarded(
    request: pytest.FixtureRequest, engines: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """A server on a database of its own, that takes API keys and has a policy."""
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    with fresh_database(template_database) as url:
        chosen = settings(
            transport=request.param,
            database_url=url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            api_keys=True,
            policy_file=policy,
            access_refresh_seconds=0.1,
            deadline_seconds=1,
        )
        with serving(chosen) as server:
            yield Guarded(server, policy)


@pytest.fixture(scope="module")
def stub(guarded: Guarded) -> Iterator[RouteServiceStub]:
    with grpc.insecure_channel(guarded.server.address) as channel:
        yield RouteServiceStub(channel)


@pytest.fixture(scope="module")
def admin(guarded: Guarded, stub: RouteServiceStub) -> dict[str, Any]:
    """How the admin calls; and a route of another tenant is there."""
    options = bearing(guarded.make("admin", "admin:*"))
    stub.Create(pb.CreateRequest(key=THERE, url=URL), **options)
    return options


@pytest.fixture(scope="module")
def guest(guarded: Guarded, admin: dict[str, Any]) -> dict[str, Any]:
    """How somebody calls who may do everything in team-a and nothing elsewhere."""
    return bearing(guarded.make("guest", "admin:team-a"))


def bearing(text: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {text}"), ("x-request-id", "the-same")), "timeout": 30}


def code_of(call: Callable[..., Any], request: Any, options: dict[str, Any]) -> grpc.StatusCode:
    try:
        call(request, **options)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def family(key: RouteKey) -> dict[str, Any]:
    return {"tenant": key.tenant, "service": key.service, "env": key.env}


def creating(key: RouteKey) -> pb.Mutation:
    return pb.Mutation(create=pb.CreateRequest(key=key, url=URL))


REQUESTS: dict[str, Callable[[RouteKey], Any]] = {
    "Resolve": lambda key: pb.ResolveRequest(key=key),
    "BatchResolve": lambda key: pb.BatchResolveRequest(keys=[OURS, key]),
    "Create": lambda key: pb.CreateRequest(key=key, url=URL),
    "Update": lambda key: pb.UpdateRequest(key=key, url=URL),
    "Activate": lambda key: pb.ActivateRequest(key=key),
    "Deactivate": lambda key: pb.DeactivateRequest(key=key),
    "Delete": lambda key: pb.DeleteRequest(key=key),
    "Import": lambda key: pb.ImportRequest(routes=[pb.ImportedRoute(key=each, url=URL) for each in (OURS, key)]),
    "Commit": lambda key: pb.CommitRequest(mutations=[creating(OURS), creating(key)], dry_run=True),
    "SetTraffic": lambda key: SetTrafficRequest(
        **family(key), targets=[TrafficTarget(version=key.version, weight=10_000)]
    ),
    "GetTraffic": lambda key: GetTrafficRequest(**family(key)),
    "ListTraffic": lambda key: ListTrafficRequest(tenant=key.tenant, service=key.service),
    "DeleteTraffic": lambda key: DeleteTrafficRequest(**family(key)),
    "Select": lambda key: pb.SelectRequest(**family(key)),
    "BatchSelect": lambda key: pb.BatchSelectRequest(selections=[pb.Selection(**family(each)) for each in (OURS, key)]),
    "Explain": lambda key: pb.ExplainRequest(**family(key)),
    "Get": lambda key: pb.GetRequest(key=key),
    "List": lambda key: pb.ListRequest(tenant=key.tenant, service=key.service, env=key.env),
    "ListChanges": lambda key: pb.ListChangesRequest(tenant=key.tenant, version=key.version),
    "Watch": lambda key: WatchRequest(tenant=key.tenant, service=key.service),
    "ReportProgress": lambda key: ReportProgressRequest(
        watcher_id="w" * 16, applied=ResumeToken(epoch="e", revision=1), tenant=key.tenant
    ),
    "GetPropagation": lambda key: GetPropagationRequest(revision=1, tenant=key.tenant),
    "GetUsage": lambda key: GetUsageRequest(key=key),
    "ReportUsage": lambda key: ReportUsageRequest(
        reads=[ReportUsageRequest.Read(key=each, count=1) for each in (OURS, key)]
    ),
}


def undated(refusal: Refusal) -> Refusal:
    """Return a refusal without the second in which Envoy sent it."""
    return replace(refusal, trailers={name: value for name, value in refusal.trailers.items() if name != "date"})


def method_of(stub: RouteServiceStub, name: str) -> Callable[..., Any]:
    """Return a function that calls the method; of a stream, it returns the first response."""
    method = getattr(stub, name)
    if name != "Watch":
        return cast("Callable[..., Any]", method)

    def first(request: Any, **options: Any) -> Any:
        stream = method(request, **options)
        try:
            return next(stream)
        finally:
            stream.cancel()

    return first


def test_the_requests_below_are_of_every_method() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["RouteService"].methods}
    # Only the history says what a Revert changes, and it is denied once that is known.
    assert set(REQUESTS) == methods - {"Revert"}


def operations(guarded: Guarded) -> dict[str, float]:
    """How much was asked of the store and of the caches so far, by what the metrics say."""
    metrics = guarded.server.app.metrics
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    asked = ("pointsman_store_queries_total", "pointsman_cache_lookups_total", "pointsman_resolve_requests_total")
    return {
        json.dumps([sample.name, sample.labels]): sample.value
        for sample in samples
        # The monitor looks at the clock, and the feed at the history, by themselves.
        if sample.name in asked and sample.labels.get("operation") not in ("clock", "list_changes")
    }


@pytest.mark.parametrize("method", REQUESTS)
def test_another_tenants_route_is_denied_the_same_whether_or_not_it_exists(
    guarded: Guarded, stub: RouteServiceStub, guest: dict[str, Any], method: str
) -> None:
    call, request = method_of(stub, method), REQUESTS[method]
    before = operations(guarded)

    there: Refusal = refused(call, request(THERE), **guest)
    absent: Refusal = refused(call, request(NOT_THERE), **guest)

    assert there.code is grpc.StatusCode.PERMISSION_DENIED
    assert (there.reason, there.metadata["tenant"]) == ("FORBIDDEN", "team-b")
    # Code, text, details and every trailer; and nothing was looked up, so the time is the same too.
    assert undated(there) == undated(absent)
    assert operations(guarded) == before


@pytest.mark.parametrize("method", REQUESTS)
def test_who_is_granted_it_may(stub: RouteServiceStub, guest: dict[str, Any], method: str) -> None:
    key = RouteKey(tenant="team-a", service=f"mine-{method.lower()}", env="prod", version="v1")

    assert code_of(method_of(stub, method), REQUESTS[method](key), guest) is not grpc.StatusCode.PERMISSION_DENIED


def test_all_tenants_are_only_for_who_may_read_all(
    stub: RouteServiceStub, guest: dict[str, Any], admin: dict[str, Any]
) -> None:
    for name, request in (
        ("List", pb.ListRequest()),
        ("ListChanges", pb.ListChangesRequest()),
        ("Watch", WatchRequest()),
        ("GetPropagation", GetPropagationRequest(revision=1)),
    ):
        call = method_of(stub, name)
        assert code_of(call, request, guest) is grpc.StatusCode.PERMISSION_DENIED
        assert code_of(call, request, admin) is grpc.StatusCode.OK


def test_nobody_vouches_for_the_watcher_of_another_subject(
    stub: RouteServiceStub, guest: dict[str, Any], admin: dict[str, Any]
) -> None:
    watcher = Watcher(id="w" * 20, name="checkout")
    key = RouteKey(tenant="team-a", service="vouched", env="prod", version="v1")
    revision = stub.Create(pb.CreateRequest(key=key, url=URL), **admin).route.revision
    stream = stub.Watch(WatchRequest(tenant="team-a", watcher=watcher), **guest)
    try:
        token = next(event.checkpoint.as_of for event in stream if event.HasField("checkpoint"))
        report = ReportProgressRequest(watcher_id=watcher.id, applied=token, tenant="team-a")
        asked = GetPropagationRequest(revision=revision, tenant="team-a")

        stub.ReportProgress(report, **admin)
        found = stub.GetPropagation(asked, **admin)
        assert (found.watcher_count, found.applied_count) == (1, 0)
        assert [(behind.watcher_id, behind.subject) for behind in found.behind] == [(watcher.id, "key:guest")]

        stub.ReportProgress(report, **guest)
        assert stub.GetPropagation(asked, **admin).applied_count == 1
    finally:
        stream.cancel()


def test_readers_are_told_by_their_subjects_and_by_nothing_else(
    stub: RouteServiceStub, guest: dict[str, Any], admin: dict[str, Any]
) -> None:
    key = RouteKey(tenant="team-a", service="read", env="prod", version="v1")
    stub.Create(pb.CreateRequest(key=key, url=URL), **admin)
    stub.Resolve(pb.ResolveRequest(key=key), **guest)
    stub.Resolve(pb.ResolveRequest(key=key), **admin)
    stub.ReportUsage(ReportUsageRequest(reads=[ReportUsageRequest.Read(key=key, count=5)]), **guest)

    usage = stub.GetUsage(GetUsageRequest(key=key), **guest)

    assert {(reader.subject, reader.read_count) for reader in usage.readers} == {("key:guest", 6), ("key:admin", 1)}


def test_a_malformed_request_is_refused_as_such_for_any_caller(stub: RouteServiceStub, guest: dict[str, Any]) -> None:
    refusal = refused(stub.Get, pb.GetRequest(key=RouteKey(tenant="team-b")), **guest)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


def test_the_actor_of_a_change_is_who_called(stub: RouteServiceStub, guest: dict[str, Any]) -> None:
    key = RouteKey(tenant="team-a", service="signed", env="prod", version="v1")
    stub.Create(pb.CreateRequest(key=key, url=URL), **guest)

    changes = stub.ListChanges(pb.ListChangesRequest(tenant="team-a", service="signed"), **guest).changes

    assert [change.actor for change in changes] == ["key:guest"]


def test_denials_are_counted_by_permission(guarded: Guarded, stub: RouteServiceStub, guest: dict[str, Any]) -> None:
    pattern = r'pointsman_denied_total\{permission="changes.read"\}'
    before = get_metric(guarded.server.http, pattern) or 0.0

    refused(stub.ListChanges, pb.ListChangesRequest(), **guest)

    assert get_metric(guarded.server.http, pattern) == before + 1


def test_a_policy_that_changes_counts_and_a_broken_one_does_not(guarded: Guarded, stub: RouteServiceStub) -> None:
    options = bearing(guarded.make("policed-1"))
    request = pb.ListRequest(tenant="team-a")
    failed = r'pointsman_access_renewals_total\{outcome="failed",what="policy"\}'
    assert code_of(stub.List, request, options) is grpc.StatusCode.OK

    guarded.policy.write_text(POLICY.replace("team-a", "team-c"))
    assert eventually(lambda: code_of(stub.List, request, options) is grpc.StatusCode.PERMISSION_DENIED)

    before = get_metric(guarded.server.http, failed) or 0.0
    guarded.policy.write_text("[[grant]]\nroles = ")
    assert eventually(lambda: (get_metric(guarded.server.http, failed) or 0.0) > before)
    assert code_of(stub.List, pb.ListRequest(tenant="team-c"), options) is grpc.StatusCode.OK

    guarded.policy.write_text(POLICY)
    assert eventually(lambda: code_of(stub.List, request, options) is grpc.StatusCode.OK)


def test_a_revoked_key_is_refused_on_every_server_within_the_interval(
    guarded: Guarded, stub: RouteServiceStub, engines: Any
) -> None:
    first = guarded.server.app.settings
    second = first.model_copy(update={"policy_file": None})
    options = bearing(guarded.make("leaked", "reader:team-a"))
    request = pb.ListRequest(tenant="team-a")
    with serving(second) as other, grpc.insecure_channel(other.address) as channel:
        stubs = [stub, RouteServiceStub(channel)]
        assert [code_of(each.List, request, options) for each in stubs] == [grpc.StatusCode.OK] * 2

        guarded.server.run(guarded.store.revoke("leaked", "bob"))

        for each in stubs:
            assert eventually(lambda each=each: code_of(each.List, request, options) is UNAUTHENTICATED)
            assert refused(each.List, request, **options).metadata["problem"] == "revoked"


UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def test_with_postgresql_away_the_last_keys_stay(guarded: Guarded, stub: RouteServiceStub) -> None:
    options = bearing(guarded.make("steady", "reader:team-a"))
    request = pb.ListRequest(tenant="team-a")
    assert code_of(stub.List, request, options) is grpc.StatusCode.OK
    verifier = guarded.server.app.access.api_keys
    assert verifier

    guarded.server.run(rename(guarded, "api_keys", "api_keys_away"))
    try:
        assert eventually(lambda: verifier.known.problem)
        assert code_of(stub.List, request, options) is grpc.StatusCode.OK
    finally:
        guarded.server.run(rename(guarded, "api_keys_away", "api_keys"))
    assert eventually(lambda: not verifier.known.problem)


async def rename(guarded: Guarded, old: str, new: str) -> None:
    # Not by the driver's own method: after an ALTER it deallocates what the server has prepared on the connection.
    async with guarded.server.app.database.connection() as connection:
        await connection.exchange(Step(Statement("", f"ALTER TABLE {old} RENAME TO {new}")))


@pytest.fixture(scope="module")
def channel(guarded: Guarded) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guarded.server.address) as channel:
        yield channel


class TestBadInputWhereCallersAreChecked:
    """The rows of bad input: a permitted caller gets the answer of each, and any other the same denial."""

    @pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x06\x0a\x04\xff\xfe\xfd\xfc"], ids=["protobuf", "UTF-8"])
    @pytest.mark.parametrize("method", ["Resolve", "BatchResolve", "Create", "List"])
    def test_what_is_malformed_gets_a_fixed_text(
        self, channel: grpc.Channel, guest: dict[str, Any], method: str, body: bytes
    ) -> None:
        call = channel.unary_unary(f"/pointsman.v1.RouteService/{method}")
        refusal = refused(call, body, **guest)

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert refusal.message == ": the request is not a valid protobuf message of this method"
        assert refused(call, body, timeout=30).code is UNAUTHENTICATED

    def test_an_unknown_method_is_unimplemented(self, channel: grpc.Channel, guest: dict[str, Any]) -> None:
        for path in ("/pointsman.v1.RouteService/Nonsense", "/pointsman.v1.Nonsense/Get", "/"):
            for options in (guest, {"timeout": 30}):
                assert refused(channel.unary_unary(path), b"", **options).code is grpc.StatusCode.UNIMPLEMENTED

    def test_a_bug_gets_a_fixed_text_and_the_request_id(
        self, guarded: Guarded, stub: RouteServiceStub, guest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*_args: object) -> None:
            raise RuntimeError("canary")

        monkeypatch.setattr(guarded.server.app.store, "list_routes", broken)
        refusal = refused(stub.List, pb.ListRequest(tenant="team-a"), **guest)

        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert refusal.metadata == {"x-request-id": "the-same"}
        assert "canary" not in str(refusal)

    def test_who_waits_for_keys_waits_no_longer_than_for_anything_else(
        self, guarded: Guarded, stub: RouteServiceStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = guarded.server.app.access.api_keys.known
        go_on = asyncio.Event()

        async def never() -> None:
            await go_on.wait()

        monkeypatch.setattr(known, "_renew_if_due", never)
        metadata = bearing(mint().text)["metadata"]
        try:
            refusal = refused(stub.List, pb.ListRequest(), metadata=metadata)
        finally:
            guarded.server.loop.call_soon_threadsafe(go_on.set)

        assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "default server deadline (1 s)" in refusal.message

    def test_a_denial_repeats_nothing_that_is_no_name(self, stub: RouteServiceStub, guest: dict[str, Any]) -> None:
        refusal = refused(stub.List, pb.ListRequest(tenant="https://user:canary@host"), **guest)

        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
        assert "canary" not in str(refusal)


def test_a_batch_is_denied_as_a_whole_wherever_in_it_the_other_tenant_is(
    stub: RouteServiceStub, guest: dict[str, Any]
) -> None:
    for there in (THERE, NOT_THERE):
        for keys in ([there], [OURS, there], [there, OURS], [OURS] * 999 + [there]):
            refusal = refused(stub.BatchResolve, pb.BatchResolveRequest(keys=keys), **guest)

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
            assert refusal.metadata == {"permission": "routes.read", "tenant": "team-b", "env": "prod"}


def test_a_commit_needs_the_permission_in_each_tenant_and_env(
    guarded: Guarded, stub: RouteServiceStub, guest: dict[str, Any], admin: dict[str, Any]
) -> None:
    theirs = {"create": creating(THERE), "update": pb.Mutation(update=pb.UpdateRequest(key=NOT_THERE, url=URL))}
    theirs["set_traffic"] = pb.Mutation(set_traffic=REQUESTS["SetTraffic"](THERE))
    theirs["delete_traffic"] = pb.Mutation(delete_traffic=REQUESTS["DeleteTraffic"](THERE))
    ours = creating(RouteKey(tenant="team-a", service="committed", env="prod", version="v1"))
    before = stub.ListChanges(pb.ListChangesRequest(newest_first=True, page_size=1), **admin)
    for other in theirs.values():
        for mutations in ([other], [ours, other], [other, ours], [ours] * 999 + [other]):
            refusal = refused(stub.Commit, pb.CommitRequest(mutations=mutations), **guest)

            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
            assert refusal.metadata == {"permission": "routes.write", "tenant": "team-b", "env": "prod"}
    assert stub.ListChanges(pb.ListChangesRequest(newest_first=True, page_size=1), **admin) == before

    writer = bearing(guarded.make("both", "writer:team-a:prod", "writer:team-b:prod"))
    theirs["create"].create.key.version = "v7"
    assert stub.Commit(pb.CommitRequest(mutations=[ours, theirs["create"]]), **writer).change_set_id
    ours.create.key.env = "test"
    refusal = refused(stub.Commit, pb.CommitRequest(mutations=[ours, theirs["create"]]), **writer)
    assert refusal.metadata == {"permission": "routes.write", "tenant": "team-a", "env": "test"}


def test_every_change_of_a_commit_has_who_made_it(stub: RouteServiceStub, guest: dict[str, Any]) -> None:
    mutations = [
        creating(RouteKey(tenant="team-a", service="made", env="prod", version=version)) for version in ("v1", "v2")
    ]
    made = stub.Commit(pb.CommitRequest(mutations=mutations, reason="the move", request_id="once"), **guest)

    assert [(each.actor, each.reason, each.request_id) for each in made.changes] == [
        ("key:guest", "the move", "once")
    ] * 2
