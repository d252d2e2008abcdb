"""What of a client's headers reaches the application behind Envoy: never a certificate or an address that it claims."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, StreamEnded, StreamReset
from starlette.types import Receive, Scope, Send

from pointsman_server.rpc.transport.asgi.client_certificate import auth_context_of
from tests.support.certificates import Authority, Pair, TlsFiles
from tests.support.envoy import envoy_before
from tests.support.servers import EVERYBODY, settings

Fields = list[tuple[bytes, bytes]]
NAME = b"x-forwarded-client-cert"
FORGED_URI = "spiffe://prod/admin"
PATIENCE_SECONDS = 30


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the application is told of the request."""
    await receive()
    seen = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
    body = json.dumps({"headers": seen, "client": scope["client"], "path": scope["path"]}).encode()
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def ours() -> Authority:
    """The authority of the server and of its clients."""
    return Authority()


@dataclass(frozen=True)
class Door:
    """An Envoy before ``echo``; ``context`` is that of a client, or None for plaintext."""

    port: int
    context: ssl.SSLContext | None

    @contextmanager
    def connected(self, protocol: str) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_SECONDS) as wire:
            if self.context is None:
                yield wire
                return
            self.context.set_alpn_protocols([protocol])
            with self.context.wrap_socket(wire, server_hostname="localhost") as wrapped:
                yield wrapped


@contextmanager
def running(**more: object) -> Iterator[int]:
    """Run Envoy before ``echo`` on a loop in a thread; give its port."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE_SECONDS)

    try:
        chosen = settings(transport="envoy", **more)
        port, *_ = run(stack.enter_async_context(envoy_before(echo, chosen)))
        yield port
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        loop.close()


@pytest.fixture(scope="module")
def own(ours: Authority) -> Pair:
    """The certificate of the client."""
    return ours.client(dns=("checkout.internal",))


KINDS = ["plaintext", "tls", "tls, a certificate shown though none is asked for", "mutual"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def door(kind: str, ours: Authority, own: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    files = TlsFiles(tmp_path_factory.mktemp("tls"))
    files.write(ours.server(), ours.pem)
    more: dict[str, Path] = {}
    context = None
    if kind != "plaintext":
        more = {"tls_cert_file": files.cert, "tls_key_file": files.key}
        context = ssl.create_default_context(cadata=ours.pem.decode())
    if kind == "mutual":
        more |= {"tls_client_ca_file": files.client_ca, "policy_file": EVERYBODY}
    if context and kind != "tls":
        shown = files.directory / "client.pem"
        shown.write_bytes(own.cert + own.key)
        context.load_cert_chain(shown)
    with running(**more) as port:
        yield Door(port, context)


def by_http1(door: Door, extra: Fields) -> dict[str, Any] | None:
    """Make a request by HTTP/1.1; give what the application saw, or None where Envoy refused it."""
    fields = [(b"host", b"localhost"), (b"connection", b"close"), *extra]
    with door.connected("http/1.1") as wire:
        wire.sendall(b"GET /path HTTP/1.1\r\n" + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n")
        received = b""
        while data := wire.recv(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    return json.loads(body) if head.startswith(b"HTTP/1.1 200") else None


def by_http2(door: Door, extra: Fields) -> dict[str, Any] | None:
    """Make the same request by HTTP/2, with names as they are."""
    config = H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None)
    connection = H2Connection(config)
    connection.initiate_connection()
    pseudo = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/path"), (b":authority", b"localhost")]
    connection.send_headers(1, [*pseudo, *extra], end_stream=True)
    body, over = b"", False
    with door.connected("h2") as wire:
        wire.sendall(connection.data_to_send())
        while not over and (data := wire.recv(65536)):
            for event in connection.receive_data(data):
                if isinstance(event, DataReceived):
                    body += event.data or b""
                over = over or isinstance(event, StreamEnded | StreamReset | ConnectionTerminated)
            wire.sendall(connection.data_to_send())
    return json.loads(body) if body.startswith(b"{") else None


Request = Callable[[Door, Fields], dict[str, Any] | None]
by_both = pytest.mark.parametrize("request_by", [by_http1, by_http2])


def names_of(seen: dict[str, Any]) -> list[bytes]:
    context = auth_context_of([(name.encode(), value.encode("latin-1")) for name, value in seen["headers"]])
    return [*context.get("peer_uri", []), *context.get("peer_dns", [])]


def forged(ours: Authority) -> list[bytes]:
    """Headers that claim to be another caller: by the names, and by a certificate that is genuine but public."""
    from urllib.parse import quote

    cert = quote(ours.client(uris=(FORGED_URI,)).cert, safe="")
    return [f"Hash=aa;URI={FORGED_URI}".encode(), f'Hash=aa;Cert="{cert}"'.encode()]


@by_both
@pytest.mark.parametrize("spelling", [NAME, b"X-Forwarded-Client-Cert", b"X-FORWARDED-CLIENT-CERT"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_certificate_that_a_header_claims_never_arrives(door, kind, ours, request_by, spelling, times):
    for value in forged(ours):
        seen = request_by(door, [(spelling, value)] * times)
        if seen is None:
            # HTTP/2 knows no capital letters (RFC 9113, 8.2.1).
            assert request_by is by_http2
            assert spelling != NAME
            continue
        assert names_of(seen) == ([b"checkout.internal"] if kind == "mutual" else [])
        arrived = [text for name, text in seen["headers"] if name.lower() == NAME.decode()]
        assert len(arrived) == (kind == "mutual")
        assert value.decode() not in str(arrived)


@by_both
@pytest.mark.parametrize("name", [b"x_forwarded_client_cert", b"x-forwarded-client-cert ", b"connection-x"])
def test_a_name_that_only_resembles_it_counts_for_nothing(door, kind, ours, request_by, name):
    for value in forged(ours):
        seen = request_by(door, [(name, value)])
        assert seen is None or names_of(seen) == ([b"checkout.internal"] if kind == "mutual" else [])


@by_both
def test_a_client_cannot_have_its_own_certificate_dropped(door, kind, request_by):
    extra = [] if request_by is by_http2 else [(b"connection", NAME)]
    seen = request_by(door, [*extra, (NAME, b"")])

    assert seen is None or names_of(seen) == ([b"checkout.internal"] if kind == "mutual" else [])


@by_both
def test_the_peer_is_that_of_the_connection_whatever_headers_say(door, request_by):
    claims = [
        (b"x-forwarded-for", b"198.51.100.7"),
        (b"x-forwarded-for", b"10.0.0.1, 198.51.100.8"),
        (b"x-envoy-external-address", b"198.51.100.9"),
        (b"x-real-ip", b"198.51.100.10"),
        (b"forwarded", b"for=198.51.100.11"),
    ]
    seen = request_by(door, claims)

    assert seen["client"][0] == "127.0.0.1"
    assert [text for name, text in seen["headers"] if name == "x-envoy-external-address"] == ["127.0.0.1"]


@by_both
def test_what_envoy_obeys_of_its_own_headers_is_dropped(door, request_by):
    names = [b"x-envoy-internal", b"x-envoy-upstream-rq-timeout-ms", b"x-envoy-retry-on", b"x-envoy-max-retries"]
    seen = request_by(door, [(name, b"1") for name in names])

    assert not {name.decode() for name in names} & {name for name, _ in seen["headers"]}


@by_both
def test_a_path_in_a_header_is_not_the_path(door, request_by):
    names = [b"x-envoy-original-path", b"x-original-url", b"x-rewrite-url"]
    seen = request_by(door, [(name, b"/other") for name in names])

    assert seen["path"] == "/path"


def test_a_host_beside_the_authority_is_one_or_the_request_is_refused(door):
    seen = by_http2(door, [(b"host", b"other.internal")])

    assert seen is None or [text for name, text in seen["headers"] if name == "host"] == ["localhost"]
