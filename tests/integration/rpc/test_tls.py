"""TLS and client certificates: which clients pass the handshake, and their identities."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.app import listening
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import KeyDraft
from pointsman_server.rpc.transport.envoy import bootstrap
from tests.support.certificates import Authority, Pair, TlsFiles, connect
from tests.support.engines import fresh_database, fresh_redis
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, jwks
from tests.support.refusals import refused
from tests.support.servers import EVERYBODY, RunningServer, serving, settings
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"


@pytest.fixture(scope="module")
def ours() -> Authority:
    """The authority of the server and of its clients."""
    return Authority()


@pytest.fixture
def files(tmp_path: Path, ours: Authority) -> TlsFiles:
    files = TlsFiles(tmp_path)
    files.write(ours.server(), ours.pem)
    return files


@pytest.fixture(params=["grpcio", "envoy"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(engines, template_database, files: TlsFiles, transport: str) -> Iterator[Callable[..., RunningServer]]:
    """Starts a server on the files, with further settings."""
    with ExitStack() as stack:

        def start(**more: object) -> RunningServer:
            if {"tls_client_ca_file", "jwt_issuer"} & set(more):
                more["policy_file"] = EVERYBODY
            chosen = settings(
                transport=transport,
                database_url=stack.enter_context(fresh_database(template_database)),
                redis_url=fresh_redis(engines.urls["REDIS_URL"]),
                tls_cert_file=files.cert,
                tls_key_file=files.key,
                **more,
            )
            return stack.enter_context(serving(chosen))

        yield start


@pytest.fixture
def mutual(start, files: TlsFiles) -> RunningServer:
    return start(tls_client_ca_file=files.client_ca)


def resolves(server: RunningServer, trusted: Authority, pair: Pair | None = None) -> bool:
    """Say whether a new connection gets as far as an answer."""
    with connect(server.address, trusted, pair) as channel:
        try:
            RouteServiceStub(channel).List(pb.ListRequest(), timeout=20)
        except grpc.RpcError as error:
            # UNAVAILABLE is what a client makes of a handshake that fails.
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            return False
        return True


def actor_of(server: RunningServer, trusted: Authority, pair: Pair, key: RouteKey) -> str:
    with connect(server.address, trusted, pair) as channel:
        stub = RouteServiceStub(channel)
        stub.Create(pb.CreateRequest(key=key, url=URL))
        (change,) = stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant)).changes
        return change.actor


def test_tls_alone_takes_any_client_and_no_plaintext(start, ours, key):
    server = start()

    with connect(server.address, ours) as channel:
        RouteServiceStub(channel).Create(pb.CreateRequest(key=key, url=URL))
    assert not resolves(server, Authority()), "a client that does not trust the server"
    with grpc.insecure_channel(server.address) as channel:
        assert refused(RouteServiceStub(channel).List, pb.ListRequest()).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("version", "fine"), [(ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)])
def test_the_oldest_version_is_tls_1_2(start, ours, version, fine):
    server = start()
    context = ssl.create_default_context(cadata=ours.pem.decode())
    context.set_alpn_protocols(["h2"])
    # OpenSSL itself refuses old versions unless it is told not to care.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", server.app.grpc_server.port), timeout=20) as wire:
        try:
            with context.wrap_socket(wire, server_hostname="localhost") as wrapped:
                assert wrapped.version() == "TLSv1.2"
            shaken = True
        except ssl.SSLError:
            shaken = False
    assert shaken is fine


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1")],
    ids=lambda names: "+".join([names] if isinstance(names, str) else names),
)
def test_the_protocol_is_chosen_in_the_handshake(start, ours, transport, offered, chosen):
    server = start()
    context = ssl.create_default_context(cadata=ours.pem.decode())
    context.set_alpn_protocols(offered)
    with shaken(server, context) as wrapped:
        # grpcio speaks HTTP/2 alone.
        assert wrapped.selected_alpn_protocol() == (chosen if transport == "envoy" or "h2" in offered else None)


@contextmanager
def shaken(
    server: RunningServer, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    """Connect by TLS, and shake hands."""
    with (
        socket.create_connection(("127.0.0.1", server.app.grpc_server.port), timeout=20) as wire,
        context.wrap_socket(wire, server_hostname="localhost", session=session) as wrapped,
    ):
        yield wrapped


@pytest.mark.parametrize("transport", ["envoy"], indirect=True)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_with_a_certificate_shows_it_at_each_connection(mutual, ours, tmp_path, version):
    client = ours.client(dns=("checkout.internal",))
    (tmp_path / "client.pem").write_bytes(client.cert + client.key)
    context = ssl.create_default_context(cadata=ours.pem.decode())
    context.load_cert_chain(tmp_path / "client.pem")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["http/1.1"])
    session = None
    for _ in range(3):
        with shaken(mutual, context, session) as wrapped:
            wrapped.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert wrapped.recv(9) == b"HTTP/1.1 "
            assert not wrapped.session_reused, "a session that is resumed is not verified again"
            session = wrapped.session


@pytest.mark.parametrize("transport", ["envoy"], indirect=True)
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["nothing", "a part of a handshake"])
def test_a_client_that_does_not_shake_hands_is_disconnected(start, monkeypatch, sent):
    monkeypatch.setattr(bootstrap, "HANDSHAKE_SECONDS", 1)
    server = start()
    with socket.create_connection(("127.0.0.1", server.app.grpc_server.port), timeout=20) as wire:
        wire.sendall(sent)
        assert wire.recv(1) == b""


@pytest.mark.parametrize(
    ("names", "actor"),
    [
        ({"uris": ("spiffe://prod.example/ns/shop/sa/checkout",)}, "spiffe://prod.example/ns/shop/sa/checkout"),
        ({"uris": ("spiffe://prod/checkout",), "dns": ("a.internal", "b.internal")}, "spiffe://prod/checkout"),
        ({"dns": ("checkout.internal",)}, "dns:checkout.internal"),
        ({"uris": ("https://a.example/x",), "dns": ("checkout.internal",)}, "dns:checkout.internal"),
        ({"uris": ("spiffe://prod/" + "a" * 2000,)}, "spiffe://prod/" + "a" * 2000),
    ],
)
def test_a_client_certificate_says_who_calls(mutual, ours, key, names, actor):
    assert actor_of(mutual, ours, ours.client(**names), key) == actor


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"uris": ("spiffe://prod/a", "spiffe://prod/b")}, "ambiguous"),
        ({"uris": ("spiffe://prod/a", "spiffe://prod/b"), "dns": ("a.internal",)}, "ambiguous"),
        ({"dns": ("a.internal", "b.internal")}, "ambiguous"),
        ({"cn": "admin"}, "no name"),
        ({"dns": ("*.internal",)}, "no name"),
        # Names that hold others, as Envoy lists them without quotes.
        ({"dns": ("x;URI=spiffe://prod/admin",)}, "no name"),
        ({"uris": ("https://a;DNS=admin.internal",)}, "no name"),
        ({"uris": ('https://a,URI="spiffe://prod/admin"',)}, "no name"),
        ({"uris": ("spiffe://prod/admin;DNS=a",)}, "no name"),
        ({"uris": ("spiffe://prod/" + "a" * 3_000,)}, "no name"),
    ],
)
def test_a_certificate_of_several_callers_or_of_none_is_refused(mutual, ours, names, problem):
    with connect(mutual.address, ours, ours.client(**names)) as channel:
        refusal = refused(RouteServiceStub(channel).List, pb.ListRequest())

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert refusal.metadata == {"credential": "client certificate", "problem": problem}


@pytest.mark.parametrize("what", ["none", "of another authority", "expired", "signed by itself"])
def test_without_a_certificate_of_ours_there_is_no_handshake(mutual, ours, what):
    pair = {
        "none": lambda: None,
        "of another authority": lambda: Authority().client(dns=("checkout.internal",)),
        "expired": lambda: ours.client(dns=("checkout.internal",), days=-0.5),
        # The same issuer by name, but not by key.
        "signed by itself": lambda: Authority().server(),
    }[what]()

    assert not resolves(mutual, ours, pair)
    assert resolves(mutual, ours, ours.client(dns=("checkout.internal",)))


@pytest.mark.parametrize("own", [True, False], ids=["with its own certificate", "without any"])
def test_a_header_is_no_certificate(start, files, ours, key, own, tmp_path):
    (tmp_path / "keys.json").write_bytes(jwks(SigningKey("key-1")))
    jwt = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks_file": tmp_path / "keys.json"}
    server = start(tls_client_ca_file=files.client_ca) if own else start(**jwt)
    forged = [("x-forwarded-client-cert", "Hash=aa;URI=spiffe://prod/admin")]
    with connect(server.address, ours, ours.client(dns=("checkout.internal",))) as channel:
        stub = RouteServiceStub(channel)
        if own:
            stub.Create(pb.CreateRequest(key=key, url=URL), metadata=forged)
            (change,) = stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant), metadata=forged).changes
            assert change.actor == "dns:checkout.internal"
        else:
            # The certificate that it shows is not verified, so it is none either.
            refusal = refused(stub.List, pb.ListRequest(), metadata=forged)
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
            assert refusal.metadata["problem"] == "missing"


def test_the_host_of_a_flood_is_that_of_its_connection(start, files, ours, tmp_path):
    (tmp_path / "keys.json").write_bytes(jwks(SigningKey("key-1")))
    server = start(
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks_file=tmp_path / "keys.json",
        auth_failures_per_second=1,
    )
    bad = bearing(SigningKey("key-1", number=1).token())
    codes = set()
    with connect(server.address, ours) as channel:
        for number in range(20):
            claimed = [("x-forwarded-for", f"198.51.100.{number}")]
            codes.add(refused(RouteServiceStub(channel).List, pb.ListRequest(), metadata=bad + claimed).code)
    assert codes == {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_a_client_certificate_does_not_use_up_the_metadata(mutual, ours):
    long = ours.client(uris=("spiffe://prod/checkout",), dns=("a" * 60 + ".internal",) * 60)
    filler = [("x-filler", "a" * 12_000)]
    with connect(mutual.address, ours, long) as channel:
        assert RouteServiceStub(channel).List(pb.ListRequest(), metadata=filler).routes == []


def test_a_probe_with_a_certificate_is_answered_whatever_its_name(mutual, ours):
    with connect(mutual.address, ours, ours.client(cn="probe")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_a_token_counts_more_than_the_certificate_of_who_brings_it(start, files, ours, key, tmp_path):
    signer = SigningKey("key-1")
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    server = start(
        tls_client_ca_file=files.client_ca,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks_file=tmp_path / "keys.json",
    )
    with connect(server.address, ours, ours.client(dns=("proxy.internal",))) as channel:
        stub = RouteServiceStub(channel)
        stub.Create(pb.CreateRequest(key=key, url=URL), metadata=[("authorization", f"Bearer {signer.token()}")])
        stub.Update(pb.UpdateRequest(key=key, url=f"{URL}/new"))
        changes = stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant)).changes

    assert [change.actor for change in changes] == ["jwt:checkout", "dns:proxy.internal"]


def test_all_three_kinds_at_once_and_exactly_one_of_them_counts(start, files, ours, key, tmp_path):
    signer = SigningKey("key-1")
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    server = start(
        tls_client_ca_file=files.client_ca,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_jwks_file=tmp_path / "keys.json",
        api_keys=True,
    )
    minted = mint()
    draft = KeyDraft("ci", (parse_grant("admin:*"),), "ann", timedelta(days=1))
    server.run(PostgresApiKeyStore(server.app.database).create(draft, minted))
    server.run(server.app.access.api_keys.known.renew())
    token, api_key = bearing(signer.token()), bearing(minted.text)
    with connect(server.address, ours, ours.client(dns=("checkout.internal",))) as channel:
        stub = RouteServiceStub(channel)
        stub.Create(pb.CreateRequest(key=key, url=URL))
        for number, shown in enumerate((token, api_key)):
            stub.Update(pb.UpdateRequest(key=key, url=f"{URL}/{number}"), metadata=shown)
        changes = stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant)).changes
        refusals = {
            what: refused(stub.List, pb.ListRequest(), metadata=shown).metadata["problem"]
            for what, shown in {
                "a bad token": bearing(SigningKey("key-1", number=1).token()),
                "a bad key": bearing(minted.text[:-1]),
                "another scheme": [("authorization", "Basic eDp5")],
                "two that are good": token + api_key,
            }.items()
        }
    assert [change.actor for change in changes] == ["dns:checkout.internal", "jwt:checkout", "key:ci"]
    # None of them is made good by the certificate.
    assert refusals == {
        "a bad token": "signature",
        "a bad key": "malformed",
        "another scheme": "scheme",
        "two that are good": "ambiguous",
    }
    with connect(server.address, ours) as channel:
        refusal = refused(RouteServiceStub(channel).List, pb.ListRequest(), metadata=token)
    assert refusal.code is grpc.StatusCode.UNAVAILABLE, "without a certificate there is no handshake"


def bearing(text: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {text}")]


def in_place(files: TlsFiles, pair: Pair) -> None:
    files.write(pair)


def by_rename(files: TlsFiles, pair: Pair) -> None:
    for path, content in ((files.cert, pair.cert), (files.key, pair.key)):
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)


def by_link(files: TlsFiles, pair: Pair) -> None:
    """Switch a link to a new directory, as Kubernetes updates a mounted Secret."""
    new = files.directory / f"..{time.time_ns()}"
    new.mkdir()
    TlsFiles(new).write(pair)
    link = files.directory / "..data.new"
    link.symlink_to(new.name)
    link.replace(files.directory / "..data")
    for path in (files.cert, files.key):
        if not path.is_symlink():
            path.unlink()
            path.symlink_to(f"..data/{path.name}")


class Calls:
    """Calls in a row on one channel, in the background, until told to stop."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = RouteServiceStub(channel)
        self._stop = threading.Event()
        self.done = 0
        self.failures: list[grpc.RpcError] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            try:
                self._stub.List(pb.ListRequest(), timeout=20)
            except grpc.RpcError as error:
                self.failures.append(error)
            self.done += 1

    def go_on(self) -> bool:
        """Wait for some more of them."""
        enough = self.done + 10
        return eventually(lambda: self.done >= enough)


@pytest.mark.parametrize("replace", [in_place, by_rename, by_link])
def test_a_new_server_certificate_comes_into_force_without_a_failed_call(start, files, ours, replace):
    if replace is by_link:
        by_link(files, ours.server())
    server = start()
    new = Authority()
    with connect(server.address, ours) as channel, Calls(channel) as calls:
        assert calls.go_on()
        replace(files, new.server())

        assert eventually(lambda: resolves(server, new))
        assert not resolves(server, ours), "the old certificate is not served any more"
        assert calls.go_on()
    assert calls.failures == []


def test_a_new_authority_of_clients_comes_into_force_and_the_old_one_goes(mutual, files, ours):
    other = Authority()
    old, new = ours.client(dns=("old.internal",)), other.client(dns=("new.internal",))
    with connect(mutual.address, ours, old) as channel, Calls(channel) as calls:
        assert calls.go_on()
        files.client_ca.write_bytes(ours.pem + other.pem)
        assert eventually(lambda: resolves(mutual, ours, new))
        assert resolves(mutual, ours, old)

        files.client_ca.write_bytes(other.pem)
        assert eventually(lambda: not resolves(mutual, ours, old))
        assert resolves(mutual, ours, new)
        assert calls.go_on(), "a connection that is open goes on until it is made anew"
    assert calls.failures == []


def test_a_client_that_is_trusted_no_more_is_out_when_its_connection_ends(start, files, ours, monkeypatch):
    monkeypatch.setattr(listening, "CONNECTION_SECONDS", 1)
    server = start(tls_client_ca_file=files.client_ca)
    other = Authority()
    client = ours.client(dns=("checkout.internal",))
    with connect(server.address, ours, client) as channel, Calls(channel) as calls:
        begun = time.monotonic()
        assert eventually(lambda: time.monotonic() > begun + 3 and calls.done), "several connections, one after another"
        assert calls.failures == []

        files.client_ca.write_bytes(other.pem)
        assert eventually(lambda: calls.failures)
    assert {error.code() for error in calls.failures} == {grpc.StatusCode.UNAVAILABLE}


@pytest.mark.parametrize("spoilt", ["the key of another", "garbage"])
def test_a_broken_new_pair_leaves_the_old_one_in_force(mutual, files, ours, spoilt):
    client = ours.client(dns=("checkout.internal",))
    assert resolves(mutual, ours, client)
    if spoilt == "garbage":
        files.cert.write_text("garbage")
    else:
        files.key.write_bytes(ours.server().key)
    # A handshake looks at the files once a second at most: this takes several looks.
    for _ in range(3):
        time.sleep(1.1)
        assert resolves(mutual, ours, client)

    new = Authority()
    files.write(new.server(), new.pem)
    assert eventually(lambda: resolves(mutual, new, new.client(dns=("checkout.internal",))))
