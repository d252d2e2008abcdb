"""Who may open a stream of xDS, what they are sent, and what happens to it when that changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman.v1 import xds_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2 import CreateRequest
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.xds_service_pb2_grpc import XdsServiceStub
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import KeyDraft
from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol import messages
from tests.support.certificates import Authority
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import EVERYBODY, RunningServer, serving, settings
from tests.support.waiting import eventually
from tests.support.xds_streams import XdsStream, status_of, stream
from tests.support.xds_world import CDS, RDS

OURS, THEIRS = "v1~prod~payments~team-a", "v1~prod~payments~team-b"
NOT_LIVE, FORBIDDEN = 5, 7
POLICY = """
[[grant]]
subjects = ["key:*"]
roles = ["reader"]
tenants = ["{tenant}"]
"""


class Guarded:
    """A server that takes API keys, and the file of its policy."""

    def __init__(self, server: RunningServer, policy: Path) -> None:
        self.server = server
        self._policy = policy

    def permit(self, tenant: str) -> None:
        self._policy.write_text(POLICY.format(tenant=tenant))
        self.server.run(self.server.app.access.policy.renew())

    def make_key(self, name: str, *grants: str) -> str:
        """Make a key; return its text."""
        minted = mint()
        draft = KeyDraft(name, tuple(map(parse_grant, grants)), "ann", timedelta(days=1))
        self.server.run(self.store.create(draft, minted))
        self.renew_keys()
        return minted.text

    def renew_keys(self) -> None:
        self.server.run(self.server.app.access.api_keys.known.renew())

    @property
    def store(self) -> PostgresApiKeyStore:
        return PostgresApiKeyStore(self.server.app.database)

    @contextmanager
    def stream(self, key: str, **fields: str) -> Iterator[XdsStream]:
        with (
            grpc.insecure_channel(self.server.xds) as channel,
            stream(channel, metadata={"authorization": f"Bearer {key}"}, **fields) as client,
        ):
            yield client


@pytest.fixture(scope="module")
def guarded(engines: Any, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY.format(tenant="team-a"))
    with fresh_database(template_database) as url:
        # No look at keys and policy but those of the tests.
        chosen = settings(
            roles="api,xds",
            database_url=url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            api_keys=True,
            policy_file=policy,
            access_refresh_seconds=3600,
        )
        with serving(chosen) as server:
            yield Guarded(server, policy)


def of_routes(response: Any) -> bool:
    return bool(response.type_url == RDS)


def test_without_a_credential_there_is_no_stream(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.server.xds) as channel, stream(channel) as client:
        client.subscribe(RDS, OURS)
        with pytest.raises(grpc.RpcError) as refused:
            client.read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_names_of_other_tenants_are_denied_and_follow_the_policy(guarded: Guarded) -> None:
    guarded.permit("team-a")
    key = guarded.make_key("policed")
    with guarded.stream(key) as client:
        client.subscribe(RDS, OURS, THEIRS)
        first = client.read_until(of_routes)
        assert (status_of(first, OURS), status_of(first, THEIRS)) == (NOT_LIVE, FORBIDDEN)

        guarded.permit("team-b")
        second = client.read_until(of_routes)
        assert (status_of(second, OURS), status_of(second, THEIRS)) == (FORBIDDEN, NOT_LIVE)


def test_an_envoy_is_given_the_routes_of_the_tenants_that_it_may_read(guarded: Guarded) -> None:
    guarded.permit("team-a")
    admin, key = guarded.make_key("admin", "admin:*"), guarded.make_key("envoy")
    with grpc.insecure_channel(guarded.server.address) as channel:
        for tenant in ("team-a", "team-b"):
            where = RouteKey(tenant=tenant, service="orders", env="prod", version="v1")
            request = CreateRequest(key=where, url="http://10.0.0.1:80", active=True)
            RouteServiceStub(channel).Create(request, metadata=(("authorization", f"Bearer {admin}"),))

    def names(response: Any) -> set[str]:
        clusters = {messages.Cluster.FromString(each.value).name for each in response.resources}
        return {root_of(name) for name in clusters}

    with guarded.stream(key, user_agent="envoy") as client:
        client.subscribe(CDS, "*")
        ours, theirs = ({f"v1~prod~orders~{tenant}", f"prod~orders~{tenant}"} for tenant in ("team-a", "team-b"))
        client.read_until(lambda response: response.type_url == CDS and names(response) == ours)
        guarded.permit("team-b")
        client.read_until(lambda response: response.type_url == CDS and names(response) == theirs)


def test_a_list_of_clients_hides_what_the_caller_may_not_read(guarded: Guarded) -> None:
    guarded.permit("nobody")
    everything, ours = guarded.make_key("all", "reader:*"), guarded.make_key("ours", "reader:team-a")
    with guarded.stream(everything) as both, guarded.stream(everything) as theirs:
        both.subscribe(RDS, OURS, THEIRS)
        both.refuse(both.read(), f"what is {THEIRS}?")
        theirs.subscribe(RDS, THEIRS)
        theirs.read()
        with grpc.insecure_channel(guarded.server.xds) as channel:
            service = XdsServiceStub(channel)

            def listed(key: str) -> list[Any]:
                metadata = (("authorization", f"Bearer {key}"),)
                return list(service.ListXdsClients(pb.ListXdsClientsRequest(), metadata=metadata).clients)

            assert eventually(lambda: [len(each.refusals) for each in listed(everything)] == [1, 0])
            assert [list(each.names) for each in listed(everything)] == [[OURS, THEIRS], [THEIRS]]
            (seen,) = listed(ours)
            assert (list(seen.names), seen.name_count) == ([OURS], 1)
            assert THEIRS not in seen.refusals[0].message

            request = pb.ExplainXdsRequest(key=THEIRS)
            with pytest.raises(grpc.RpcError) as denied:
                service.ExplainXds(request, metadata=(("authorization", f"Bearer {ours}"),))
            assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_key_that_is_revoked_ends_idle_streams(guarded: Guarded) -> None:
    guarded.permit("nobody")
    key = guarded.make_key("revoked", "reader:team-a")
    with guarded.stream(key) as client, guarded.stream(key) as another:
        assert (client.status(OURS), another.status(OURS)) == (NOT_LIVE, NOT_LIVE)
        guarded.server.run(guarded.store.revoke("revoked", "ann"))
        guarded.renew_keys()
        for each in (client, another):
            with pytest.raises(grpc.RpcError) as ended:
                each.read()
            assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_client_certificate_opens_a_stream(database_url: str, tmp_path: Path) -> None:
    authority = Authority()
    pair = authority.server()
    for name, pem in (("cert", pair.cert), ("key", pair.key), ("ca", authority.pem)):
        (tmp_path / name).write_bytes(pem)
    files = {f"tls_{name}_file": tmp_path / name.rpartition("_")[2] for name in ("cert", "key", "client_ca")}
    with serving(settings(roles="xds", database_url=database_url, policy_file=EVERYBODY, **files)) as server:
        mine = authority.client(uris=("spiffe://pointsman/client",))
        with_it = grpc.ssl_channel_credentials(authority.pem, mine.key, mine.cert)
        with grpc.secure_channel(server.xds, with_it) as channel, stream(channel) as client:
            assert client.status(OURS) == NOT_LIVE
        without = grpc.ssl_channel_credentials(authority.pem)
        with grpc.secure_channel(server.xds, without) as channel, stream(channel) as client:
            client.subscribe(RDS, OURS)
            with pytest.raises(grpc.RpcError) as refused:
                client.read()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
