"""Where URLs lead."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.rules import DEFAULT_PORTS, url_problem
from pointsman_server.xds.resources.destinations import Destination, NotCarried, destination_of
from pointsman_server.xds.views import ClientKind

GRPC, ENVOY = ClientKind.GRPC, ClientKind.ENVOY


def found(url: str, kind: ClientKind = ENVOY) -> Destination:
    destination = destination_of(kind, url)
    assert isinstance(destination, Destination), destination
    return destination


def reason(url: str, kind: ClientKind = ENVOY) -> str:
    destination = destination_of(kind, url)
    assert isinstance(destination, NotCarried), destination
    return destination.reason


def test_a_url_is_taken_apart() -> None:
    assert found("https://payments.internal:8443/api") == Destination(
        host="payments.internal",
        literal=False,
        port=8443,
        tls=True,
        path="/api/",
        san="payments.internal",
        authority="payments.internal:8443",
    )


@pytest.mark.parametrize(
    ("url", "host", "literal"),
    [
        ("http://127.0.0.1", "127.0.0.1", True),
        ("http://[2001:DB8:0:0::1]", "2001:db8::1", True),
        ("http://[::ffff:1.2.3.4]", "1.2.3.4", True),
        ("http://Payments.Internal", "payments.internal", False),
        ("http://payments.internal.", "payments.internal.", False),
        ("http://bücher.example", "xn--bcher-kva.example", False),
        ("http://a_b", "a_b", False),
    ],
)
def test_hosts_are_addresses_or_names(url: str, host: str, literal: bool) -> None:
    assert (found(url).host, found(url).literal) == (host, literal)


@pytest.mark.parametrize(
    ("url", "san"),
    [("https://Payments.Internal.", "payments.internal"), ("https://[2001:DB8::1]", "2001:db8::1")],
)
def test_certificates_name_hosts_without_the_last_dot(url: str, san: str) -> None:
    assert found(url).san == san


@pytest.mark.parametrize(
    ("url", "port", "tls"),
    [
        ("http://a", 80, False),
        ("HTTPS://a", 443, True),
        ("grpc://a", 80, False),
        ("grpcs://a", 443, True),
        ("grpcs://a:50051", 50051, True),
        ("http://a:443", 443, False),
    ],
)
def test_schemes_say_the_port_and_tls(url: str, port: int, tls: bool) -> None:
    assert (found(url).port, found(url).tls) == (port, tls)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://a.b", "a.b"),
        ("http://a.b:80", "a.b"),
        ("https://a.b:80", "a.b:80"),
        ("http://a.b.:81", "a.b:81"),
        ("https://[::1]", "[::1]"),
        ("https://[::1]:1", "[::1]:1"),
    ],
)
def test_the_authority_has_a_port_where_it_is_not_that_of_the_scheme(url: str, authority: str) -> None:
    assert found(url).authority == authority


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://a", ""),
        ("http://a/", ""),
        ("http://a/b", "/b/"),
        ("http://a/b/", "/b/"),
        ("http://a//", "//"),
        ("http://a/b%20c;d=1", "/b%20c;d=1/"),
        ("http://a/ü", "/%C3%BC/"),
    ],
)
def test_paths_are_prefixes(url: str, path: str) -> None:
    assert found(url).path == path


def test_grpc_clients_add_no_path() -> None:
    assert "path" in reason("http://a/b", GRPC)
    assert found("http://a/", GRPC) == found("http://a", GRPC)


@pytest.mark.parametrize("kind", ClientKind)
@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("kafka://a", "scheme"),
        ("dns:///a", "scheme"),
        ("unix:///a", "scheme"),
        ("a", "scheme"),
        ("http:///a", "host"),
        ("http://a:0", "port 0"),
        ("http://a?b", "query"),
        ("http://a#b", "fragment"),
        ("http://user@a", "credentials"),
        ("http://a:99999", "malformed"),
        ("http://[a", "malformed"),
        ("http://[fe80::1%25eth0]", "malformed"),
        ("http://[fe80::1%eth0]", "malformed"),
    ],
)
def test_what_is_not_carried_has_a_reason(url: str, part: str, kind: ClientKind) -> None:
    assert part in reason(url, kind)
    assert "user" not in reason(url, kind)


@given(kind=st.sampled_from(ClientKind), url=st.text() | st.from_regex(r"https?://[^/]*(/.*)?", fullmatch=True))
@settings(deadline=None)
def test_every_text_leads_somewhere_or_has_a_reason(kind: ClientKind, url: str) -> None:
    destination = destination_of(kind, url)

    if isinstance(destination, NotCarried):
        assert destination.reason
    else:
        assert 0 < destination.port < 65_536
        assert destination.host.isascii()
        assert destination.path.isascii()


@given(scheme=st.sampled_from([*DEFAULT_PORTS]), host=st.text(min_size=1, max_size=70), port=st.integers(1, 65_535))
@settings(deadline=None)
def test_every_url_that_may_be_stored_is_carried_if_it_is_a_host_and_a_port(scheme: str, host: str, port: int) -> None:
    url = f"{scheme}://{host}:{port}"
    if url_problem(url) is None and not any(mark in host for mark in "/?#%"):
        assert found(url, GRPC).port == port
