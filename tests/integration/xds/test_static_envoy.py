"""A real Envoy with what it is sent, written into its configuration: hosts, paths, TLS, weights and fallbacks."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest

from pointsman_server.xds.targets import FORBIDDEN, UNKNOWN, Target, Version, of_family, of_route
from pointsman_server.xds.views import ClientKind, View
from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.support.waiting import eventually
from tests.support.xds_clients.backends import Backends, backends
from tests.support.xds_envoy import configuration, problem, running
from tests.support.xds_targets import URLS, division_of

METHOD = "/pointsman.test.Echo/Echo"


@contextmanager
def web_server(name: str) -> Iterator[int]:
    """Serve HTTP/1.1 that answers its name, and the path and the host that it was asked for; give its port."""

    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet.
        wbufsize = 1 << 16

        def do_GET(self) -> None:
            body = f"{name} {self.path} {self.headers['host']}".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        # Connections of Envoy stay open.
        daemon_threads = True

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class Proxy(NamedTuple):
    """An Envoy that routes by names, and the ports of what is behind it."""

    port: int
    w1: int
    w2: int

    def get(self, name: str, path: str = "/a?b=c") -> tuple[int, str]:
        """Ask over HTTP/1.1."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers={"Host": name})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def call(self, name: str) -> str:
        """Call by gRPC; return the answer, or the status."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", [("grpc.default_authority", name)]) as channel:
            try:
                reply: bytes = channel.unary_unary(METHOD)(b"0", timeout=20)
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                return str(error.code().name)
            return reply.decode()


def route(url: str) -> Target:
    return of_route(Version("v1", url, active=True))


def family(first: str, second: str, weight: int) -> Target:
    versions = [Version("v1", first, active=True), Version("v2", second, active=True)]
    return of_family(versions, division_of({"v1": weight, "v2": 10_000 - weight} if weight else {"v1": 10_000}, "v2"))


def secured(running_backends: Backends, authority: Authority, directory: Path, *names: str) -> int:
    """Start a backend whose certificate is for ``names``."""
    pair = authority.server(*names)
    paths = directory / f"{names[0]}.crt", directory / f"{names[0]}.key"
    for path, content in zip(paths, (pair.cert, pair.key), strict=True):
        path.write_bytes(content)
    return running_backends.open(names[0], tls=paths)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("envoy")
    authority = Authority()
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(authority.pem)
    with ExitStack() as stack:
        behind = stack.enter_context(backends())
        w1, w2 = (stack.enter_context(web_server(name)) for name in ("w1", "w2"))
        grpc_port = behind.open("b1")
        by_name = secured(behind, authority, directory, "localhost")
        by_wildcard = secured(behind, authority, directory, "*.localhost")
        by_address = secured(behind, authority, directory, "127.0.0.1")
        dead = free_port()
        found = Proxy(free_port(), w1, w2)
        targets = {
            "web~a~b~c": route(f"http://127.0.0.1:{w1}"),
            "path~a~b~c": route(f"http://localhost:{w1}/api"),
            "grpc~a~b~c": route(f"http://127.0.0.1:{grpc_port}"),
            "grpcpath~a~b~c": route(f"grpc://LOCALHOST:{grpc_port}/api"),
            "tls~a~b~c": route(f"https://localhost:{by_name}"),
            "tlsaddress~a~b~c": route(f"grpcs://127.0.0.1:{by_address}"),
            "othername~a~b~c": route(f"https://localhost:{by_address}"),
            "otheraddress~a~b~c": route(f"https://127.0.0.1:{by_name}"),
            "wildcard~a~b~c": route(f"https://127.0.0.1:{by_wildcard}"),
            "unknown~a~b~c": UNKNOWN,
            "forbidden~a~b~c": FORBIDDEN,
            "query~a~b~c": route("http://a?b"),
            "divided~a~b": family(f"http://127.0.0.1:{w1}/one", f"http://localhost:{w2}", 3_000),
            "fallback~a~b": family(f"http://127.0.0.1:{dead}", f"http://localhost:{w2}", 0),
            "crowded~a~b": family(f"http://127.0.0.1:{dead}", f"http://localhost:{grpc_port}", 0),
            "broken~a~b": family(f"http://127.0.0.1:{dead}", f"http://127.0.0.1:{free_port()}", 0),
        }
        view = View(ClientKind.ENVOY, ca_file=str(ca_file), listen=f"127.0.0.1:{found.port}")
        stack.enter_context(running(configuration(view, targets, directory), directory))
        assert eventually(lambda: is_open(found))
        yield found


def is_open(proxy: Proxy) -> bool:
    try:
        return proxy.get("other")[0] == 404
    except OSError:
        return False


def test_envoy_accepts_every_form(tmp_path: Path) -> None:
    names = [f"v{number}~a~b~c" for number in range(len(URLS))]
    targets = {name: route(url) for name, url in zip(names, URLS, strict=True)}
    versions = [Version(f"v{number}", url, active=True) for number, url in enumerate(URLS)]
    targets["a~b~c"] = of_family(versions, division_of({"v0": 5_000, "v1": 3_000, "v3": 2_000, "v4": 0}, "v2", "v7"))
    targets |= {"a~b~d": UNKNOWN, "v0~a~b~d": FORBIDDEN}
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(Authority().pem)
    view = View(ClientKind.ENVOY, ca_file=str(ca_file), listen="[::1]:10000")

    assert problem(configuration(view, targets, tmp_path), tmp_path) == ""


@pytest.mark.parametrize("name", ["web~a~b~c", "web~a~b~c:8080", "WEB~A~b~c"])
def test_names_are_hosts_with_or_without_a_port(proxy: Proxy, name: str) -> None:
    assert proxy.get(name) == (200, f"w1 /a?b=c 127.0.0.1:{proxy.w1}")


def test_the_path_of_the_url_is_put_before_that_of_the_call(proxy: Proxy) -> None:
    assert proxy.get("path~a~b~c") == (200, f"w1 /api/a?b=c localhost:{proxy.w1}")
    assert proxy.get("path~a~b~c", "/") == (200, f"w1 /api/ localhost:{proxy.w1}")
    assert proxy.call("grpcpath~a~b~c") == "b1/api"


def test_grpc_reaches_its_server(proxy: Proxy) -> None:
    assert proxy.call("grpc~a~b~c") == "b1"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("tls~a~b~c", "localhost"),
        ("tlsaddress~a~b~c", "127.0.0.1"),
        ("othername~a~b~c", "UNAVAILABLE"),
        ("otheraddress~a~b~c", "UNAVAILABLE"),
        ("wildcard~a~b~c", "UNAVAILABLE"),
    ],
)
def test_the_certificate_must_be_for_the_host_of_the_url(proxy: Proxy, name: str, answer: str) -> None:
    assert proxy.call(name) == answer


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("unknown~a~b~c", "NOT_FOUND", 404),
        ("forbidden~a~b~c", "PERMISSION_DENIED", 403),
        ("query~a~b~c", "FAILED_PRECONDITION", 502),
        ("other", "NOT_FOUND", 404),
    ],
)
def test_what_is_not_live_has_a_status_for_grpc_and_for_others(proxy: Proxy, name: str, code: str, status: int) -> None:
    assert proxy.call(name) == code
    assert proxy.get(name)[0] == status


def test_calls_are_divided_each_with_its_path_and_host(proxy: Proxy) -> None:
    answers = Counter(proxy.get("divided~a~b", "/a") for _ in range(400))

    one, two = (200, f"w1 /one/a 127.0.0.1:{proxy.w1}"), (200, f"w2 /a localhost:{proxy.w2}")
    assert answers.keys() == {one, two}
    # 0.3 of 400, within five times the standard deviation of 9.
    assert 75 < answers[one] < 165


def test_a_fallback_is_taken_without_a_failed_call(proxy: Proxy) -> None:
    assert {proxy.get("fallback~a~b", "/a") for _ in range(20)} == {(200, f"w2 /a localhost:{proxy.w2}")}


def test_many_calls_at_once_take_a_fallback(proxy: Proxy) -> None:
    target, options = f"127.0.0.1:{proxy.port}", [("grpc.default_authority", "crowded~a~b")]
    with grpc.insecure_channel(target, options) as channel:
        # More than Envoy tries again at a time, unless it is told.
        calls = [channel.unary_unary(METHOD).future(b"0", timeout=20) for _ in range(300)]

        assert Counter(call.result() for call in calls) == {b"b1": 300}


def test_a_family_whose_hosts_are_all_gone_is_unavailable(proxy: Proxy) -> None:
    assert {proxy.get("broken~a~b")[0] for _ in range(5)} == {503}
