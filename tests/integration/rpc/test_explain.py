"""Explain, on both transports: what a caller would get and why, layer by layer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import CHANGE_KIND_TRAFFIC_SET, CHANGE_KIND_UPDATED, RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.selection_pb2 import Choice
from pointsman.v1.traffic_methods_pb2 import SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import KeyDraft
from tests.support.engines import fresh_database, fresh_redis
from tests.support.refusals import read_status, refused
from tests.support.servers import RunningServer, serving, settings

URL, NEW = "https://old.internal:8443", "https://new.internal:8443"
LOCAL, REDIS, POSTGRES = pb.Provenance.SOURCE_LOCAL, pb.Provenance.SOURCE_REDIS, pb.Provenance.SOURCE_POSTGRES


def ask(key: RouteKey, **fields: str) -> pb.ExplainRequest:
    return pb.ExplainRequest(
        **{"tenant": key.tenant, "service": key.service, "env": key.env, "version": key.version} | fields
    )


def told(response: pb.ExplainResponse) -> list[tuple[int, bool, int]]:
    assert [layer.problem for layer in response.layers] == ["", "", ""]
    return [(layer.source, layer.held, layer.revision) for layer in response.layers]


def test_of_a_key_that_is_read_every_layer_is_told(grpc_stub, key):
    created = grpc_stub.Create(pb.CreateRequest(key=key, url=URL, reason="the beginning")).route
    grpc_stub.Resolve(pb.ResolveRequest(key=key))

    response = grpc_stub.Explain(ask(key))

    assert response.route == created
    assert told(response) == [(layer, True, created.revision) for layer in (LOCAL, REDIS, POSTGRES)]
    assert all(layer.as_of_revision >= created.revision for layer in response.layers)
    assert all(layer.age.seconds < 60 for layer in response.layers)
    assert response.as_of_revision == response.layers[2].as_of_revision
    change = response.last_change
    assert (change.revision, change.actor, change.reason) == (created.revision, "anonymous", "the beginning")
    assert response.epoch == change.epoch
    assert (response.permission.subject, response.permission.allowed) == ("anonymous", True)


def test_the_question_itself_fills_no_cache_and_is_no_read(grpc_server, grpc_stub, key):
    absent = RouteKey(tenant=key.tenant, service=key.service, env=key.env, version="v9")
    url = grpc_server.app.settings.redis_url.get_secret_value()
    with redis.Redis.from_url(url) as client:
        before = set(client.scan_iter(f"*{key.tenant}/*"))
        for _ in range(2):
            response = grpc_stub.Explain(ask(absent))
            assert told(response) == [(LOCAL, False, 0), (REDIS, False, 0), (POSTGRES, True, 0)]
        assert set(client.scan_iter(f"*{key.tenant}/*")) == before
    status = read_status(response.status, grpc.StatusCode.NOT_FOUND, response.status.message, {})
    assert (status.reason, status.metadata["key"]) == ("ROUTE_NOT_FOUND", f"{key.tenant}/payments/prod/v9")


def test_what_redis_missed_is_seen_by_its_revision(grpc_server, grpc_stub, key):
    created = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route
    grpc_stub.Resolve(pb.ResolveRequest(key=key))
    url = grpc_server.app.settings.redis_url.get_secret_value()
    with redis.Redis.from_url(url) as client:
        (name,) = client.scan_iter(f"*{key.tenant}/payments/prod/v1")
        older = client.hgetall(name)
        updated = grpc_stub.Update(pb.UpdateRequest(key=key, url=NEW)).route
        client.hset(name, mapping=older)

    response = grpc_stub.Explain(ask(key))

    assert response.route == updated
    assert told(response) == [
        (LOCAL, True, updated.revision),
        (REDIS, True, created.revision),
        (POSTGRES, True, updated.revision),
    ]
    assert response.last_change.kind == CHANGE_KIND_UPDATED


def test_a_select_is_explained_by_the_rule_the_traffic_and_its_last_change(grpc_stub, key):
    family = RouteKey(tenant=key.tenant, service=key.service, env=key.env)
    for version in ("v1", "v2"):
        one = RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=version)
        grpc_stub.Create(pb.CreateRequest(key=one, url=f"{URL}/{version}", active=version == "v1"))
    only = grpc_stub.Explain(ask(family))
    assert (only.choice.rule, only.choice.version) == (Choice.RULE_ONLY_ACTIVE, "v1")

    targets = [TrafficTarget(version="v2", weight=10_000)]
    request = SetTrafficRequest(
        tenant=key.tenant, service=key.service, env=key.env, targets=targets, fallbacks=["v1"], reason="the canary"
    )
    traffic = grpc_stub.SetTraffic(request).traffic
    response = grpc_stub.Explain(ask(family, sticky_key="alice"))

    assert response.choice == Choice(
        rule=Choice.RULE_FALLBACK, version="v1", inactive_versions=["v2"], traffic_revision=traffic.revision
    )
    assert response.route.url == f"{URL}/v1"
    assert response.traffic == traffic
    assert told(response) == [(LOCAL, False, 0), (REDIS, False, 0), (POSTGRES, True, traffic.revision)]

    grpc_stub.Select(pb.SelectRequest(tenant=key.tenant, service=key.service, env=key.env, sticky_key="alice"))
    again = grpc_stub.Explain(ask(family, sticky_key="alice"))
    assert told(again) == [(layer, True, traffic.revision) for layer in (LOCAL, REDIS, POSTGRES)]
    assert (response.last_change.kind, response.last_change.reason) == (CHANGE_KIND_TRAFFIC_SET, "the canary")


# Who may ask, and about whom

POLICY = """
[[grant]]
subjects = ["jwt:cart"]
roles = ["reader"]
tenants = ["team-a"]

[[grant]]
claim = "groups"
value = "ops"
roles = ["reader"]
tenants = ["*"]
"""
OURS = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def guarded(
    request: pytest.FixtureRequest, engines: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server that takes API keys and has a policy."""
    policy: Path = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    with fresh_database(template_database) as url:
        chosen = settings(
            transport=request.param,
            database_url=url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            api_keys=True,
            policy_file=policy,
        )
        with serving(chosen) as server:
            yield server


@pytest.fixture(scope="module")
def stub(guarded: RunningServer) -> Iterator[RouteServiceStub]:
    with grpc.insecure_channel(guarded.address) as channel:
        yield RouteServiceStub(channel)


@pytest.fixture(scope="module")
def reader(guarded: RunningServer) -> dict[str, Any]:
    return caller(guarded, "reader", "reader:team-a")


@pytest.fixture(scope="module")
def auditor(guarded: RunningServer) -> dict[str, Any]:
    return caller(guarded, "auditor", "reader:team-a", "auditor:team-a")


def caller(server: RunningServer, name: str, *grants: str) -> dict[str, Any]:
    """Make a key, and return the options of calls with it."""
    minted = mint()
    draft = KeyDraft(name, tuple(map(parse_grant, grants)), "ann", None)
    server.run(PostgresApiKeyStore(server.app.database).create(draft, minted))
    server.run(server.app.access.api_keys.known.renew())
    return {"metadata": (("authorization", f"Bearer {minted.text}"),)}


def test_a_reader_learns_what_it_gets_and_not_the_policy(stub, reader):
    permission = stub.Explain(ask(OURS), **reader).permission
    assert (permission.subject, permission.permission, permission.allowed) == ("key:reader", "routes.read", True)
    assert list(permission.rules) == []


def test_who_may_not_read_there_learns_nothing(stub, reader):
    other = RouteKey(tenant="team-b", service="payments", env="prod", version="v1")
    assert refused(stub.Explain, ask(other), **reader).code is grpc.StatusCode.PERMISSION_DENIED


def test_of_others_only_an_auditor_learns(stub, reader, auditor):
    refusal = refused(stub.Explain, ask(OURS, subject="jwt:cart"), **reader)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
    assert refusal.metadata["permission"] == "changes.read"

    permission = stub.Explain(ask(OURS, subject="jwt:cart"), **auditor).permission
    assert (permission.subject, permission.allowed) == ("jwt:cart", True)
    assert [rule.allows for rule in permission.rules] == [True, False]
    assert "what the subject's JWT claims is not known" in permission.rules[1].why

    permission = stub.Explain(ask(OURS, subject="key:reader"), **auditor).permission
    assert permission.allowed
    assert [rule.allows for rule in permission.rules] == [True, False, False]

    refusal = refused(stub.Explain, ask(OURS, subject="cart"), **auditor)
    assert list(refusal.fields) == ["subject"]
