"""Cache hits of the fast path from outside, with every check on: it serves no caller that the chain refuses."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import KeyDraft
from tests.support.engines import fresh_database, fresh_redis
from tests.support.refusals import refused
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
POLICY = '[[grant]]\nsubjects = ["key:reader"]\nroles = ["reader"]\ntenants = ["tenant-*"]\n'
Code = grpc.StatusCode
RATE = 1000
DAY = timedelta(days=1)


class Scene:
    """A server with every check on, that counts the cache hits of the fast path."""

    def __init__(self, server: RunningServer, policy: Path) -> None:
        self.server = server
        self.policy = policy
        self.hits = 0
        counters = server.app.grpc_server.counters
        self._resolved, counters.resolved_locally = counters.resolved_locally, self.count  # type: ignore[method-assign]

    def count(self, begun: float) -> None:
        self.hits += 1
        self._resolved(begun)

    def key(self, name: str, *grants: str) -> dict[str, Any]:
        """Make an API key, and give what calls with it."""
        minted = mint()
        draft = KeyDraft(name, tuple(map(parse_grant, grants or ("reader:nobody",))), "tests", DAY)
        self.server.run(PostgresApiKeyStore(self.server.app.database).create(draft, minted))
        assert self.server.app.access.api_keys
        self.server.run(self.server.app.access.api_keys.known.renew())
        return {"metadata": [("authorization", f"Bearer {minted.text}")], "timeout": 30}

    def revoke(self, name: str) -> None:
        self.server.run(PostgresApiKeyStore(self.server.app.database).revoke(name, "tests"))


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def scene(request, engines, template_database, tmp_path_factory) -> Iterator[Scene]:
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
            rate_identity_reads=RATE,
            rate_tenant_reads=RATE,
            cache_local_ttl_seconds=60,
        )
        with serving(chosen) as server:
            yield Scene(server, policy)


@pytest.fixture
def stub(scene: Scene) -> Iterator[RouteServiceStub]:
    with grpc.insecure_channel(scene.server.address, [("grpc.enable_retries", 0)]) as channel:
        yield RouteServiceStub(channel)


@pytest.fixture(scope="module")
def admin(scene: Scene) -> dict[str, Any]:
    return scene.key("admin", "admin:*")


@pytest.fixture(scope="module")
def reader(scene: Scene) -> dict[str, Any]:
    return scene.key("reader")


@pytest.fixture
def cached(
    scene: Scene, stub: RouteServiceStub, admin: dict[str, Any], reader: dict[str, Any], key: RouteKey
) -> RouteKey:
    """A key that the fast path is known to answer."""
    stub.Create(pb.CreateRequest(key=key, url=URL), **admin)
    stub.Resolve(pb.ResolveRequest(key=key), **reader)
    before = scene.hits
    assert stub.Resolve(pb.ResolveRequest(key=key), **reader).route.url == URL
    assert scene.hits == before + 1
    return key


def test_the_fast_path_says_what_the_chain_says(scene, stub, reader, cached):
    fast = stub.Resolve(pb.ResolveRequest(key=cached), **reader)
    by_chain = stub.BatchResolve(pb.BatchResolveRequest(keys=[cached, RouteKey(**GONE)]), **reader).results[0]

    assert fast.route == by_chain.route
    assert fast.provenance.as_of_revision == by_chain.provenance.as_of_revision
    assert (fast.provenance.source, fast.provenance.epoch) == (by_chain.provenance.source, by_chain.provenance.epoch)


GONE = {"tenant": "tenant-x", "service": "gone", "env": "prod", "version": "v1"}


def test_a_batch_of_known_keys_is_the_same_each_time(scene, stub, reader, cached):
    request = pb.BatchResolveRequest(keys=[cached] * 3)
    first, again = stub.BatchResolve(request, **reader), stub.BatchResolve(request, **reader)

    assert [result.route.url for result in again.results] == [URL] * 3
    assert [result.key for result in again.results] == [result.key for result in first.results]


def test_a_call_without_a_credential_is_refused(stub, cached):
    refusal = refused(stub.Resolve, pb.ResolveRequest(key=cached))
    assert (refusal.code, refusal.metadata["problem"]) == (Code.UNAUTHENTICATED, "missing")


def test_two_credentials_are_refused(stub, reader, cached):
    doubled = reader | {"metadata": reader["metadata"] * 2}
    assert refused(stub.Resolve, pb.ResolveRequest(key=cached), **doubled).metadata["problem"] == "ambiguous"


def test_what_others_may_know_is_denied_to_who_may_not(scene, stub, cached):
    stranger = scene.key("stranger", "reader:team-b")
    refusal = refused(stub.Resolve, pb.ResolveRequest(key=cached), **stranger)
    assert refusal.code is Code.PERMISSION_DENIED
    refusal = refused(stub.BatchResolve, pb.BatchResolveRequest(keys=[cached]), **stranger)
    assert refusal.code is Code.PERMISSION_DENIED


def test_a_revoked_key_opens_nothing_any_more(scene, stub, cached):
    leaked = scene.key("leaked", "reader:tenant-*")
    assert stub.Resolve(pb.ResolveRequest(key=cached), **leaked).route.url == URL

    scene.revoke("leaked")

    assert eventually(lambda: _code(stub.Resolve, pb.ResolveRequest(key=cached), leaked) is Code.UNAUTHENTICATED)


def test_a_policy_that_grants_no_more_is_in_force(scene, stub, reader, cached):
    scene.policy.write_text(POLICY.replace("tenant-*", "nobody"))
    try:
        assert eventually(lambda: _code(stub.Resolve, pb.ResolveRequest(key=cached), reader) is Code.PERMISSION_DENIED)
    finally:
        scene.policy.write_text(POLICY)
        assert eventually(lambda: _code(stub.Resolve, pb.ResolveRequest(key=cached), reader) is Code.OK)


def test_what_is_written_is_seen_at_once(stub, admin, reader, cached):
    stub.Update(pb.UpdateRequest(key=cached, url="https://new.internal"), **admin)
    assert stub.Resolve(pb.ResolveRequest(key=cached), **reader).route.url == "https://new.internal"

    stub.Deactivate(pb.DeactivateRequest(key=cached), **admin)
    assert refused(stub.Resolve, pb.ResolveRequest(key=cached), **reader).reason == "ROUTE_INACTIVE"

    stub.Activate(pb.ActivateRequest(key=cached), **admin)
    assert stub.Resolve(pb.ResolveRequest(key=cached), **reader).route.active

    stub.Delete(pb.DeleteRequest(key=cached), **admin)
    assert refused(stub.Resolve, pb.ResolveRequest(key=cached), **reader).reason == "ROUTE_NOT_FOUND"


def test_an_answer_is_never_from_before_min_revision(stub, reader, cached):
    response = stub.Resolve(pb.ResolveRequest(key=cached), **reader)
    as_of, epoch = response.provenance.as_of_revision, response.provenance.epoch

    fine = stub.Resolve(pb.ResolveRequest(key=cached, min_revision=as_of, epoch=epoch), **reader)
    assert fine.provenance.as_of_revision >= as_of
    refusal = refused(stub.Resolve, pb.ResolveRequest(key=cached, min_revision=as_of + 1000, epoch=epoch), **reader)
    assert refusal.reason == "REVISION_NOT_REACHED"


def test_the_fast_path_counts_against_limits(scene, stub, admin, key):
    busy = scene.key("busy", "admin:*")
    stub.Create(pb.CreateRequest(key=key, url=URL), **admin)
    request = pb.BatchResolveRequest(keys=[key] * (RATE // 2))
    stub.BatchResolve(request, **busy)

    codes = [_code(stub.BatchResolve, request, busy) for _ in range(10)]

    assert Code.RESOURCE_EXHAUSTED in codes
    assert set(codes) <= {Code.OK, Code.RESOURCE_EXHAUSTED}


def test_a_server_that_drains_refuses_cache_hits_too(scene, stub, reader, cached, monkeypatch):
    monkeypatch.setattr(scene.server.app.grpc_server.admission, "_closed", True)
    assert refused(stub.Resolve, pb.ResolveRequest(key=cached), **reader).reason == "SHUTTING_DOWN"


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_the_access_log_does_not_turn_the_fast_path_off(engines, database_url, transport, key):
    chosen = settings(
        transport=transport,
        database_url=database_url,
        redis_url=fresh_redis(engines.urls["REDIS_URL"]),
        access_log_sample=1.0,
    )
    with (
        serving(chosen) as server,
        grpc.insecure_channel(server.address, [("grpc.enable_retries", 0)]) as channel,
        capture_logs() as lines,
    ):
        hits: list[float] = []
        server.app.grpc_server.counters.resolved_locally = hits.append  # type: ignore[method-assign]
        stub = RouteServiceStub(channel)
        stub.Create(pb.CreateRequest(key=key, url=URL), timeout=30)
        stub.Resolve(pb.ResolveRequest(key=key), timeout=30, metadata=[("x-request-id", "mine")])
        absent = RouteKey(**GONE)
        refused(stub.Resolve, pb.ResolveRequest(key=absent), timeout=30)
        assert len(hits) == 1
    calls = [line for line in lines if line["event"] == "call" and line["method"] == "Resolve"]
    assert [call["code"] for call in calls] == ["OK", "NOT_FOUND"]
    assert calls[0]["request_id"] == "mine"
    assert calls[0]["peer"].startswith("ipv4:127.0.0.1:")
    assert {"milliseconds"} < set(calls[0])


def _code(call: Any, request: Any, options: dict[str, Any]) -> grpc.StatusCode:
    try:
        call(request, **options)
    except grpc.RpcError as error:
        return error.code()
    return Code.OK
