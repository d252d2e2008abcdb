"""URLs, keys and labels as bytes: ``pointsman.rules``, which client and server share, agrees with the protos."""

import unicodedata
from urllib.parse import urlsplit

import httpx
import protovalidate
from google.protobuf.message import Message

from pointsman import errors as client_errors
from pointsman import keys as client_keys
from pointsman import rules
from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain import errors, routes
from tests.fuzz.hostile import CANARY, KNOWN, TEXTS

MODULES = ("pointsman.rules", "pointsman.keys", "pointsman_server.domain.routes", "urllib.parse")
WORDS = tuple(
    word.encode()
    for word in ("://", "//", "https:", "@", "[::1]", ":8443", "%40", "\\", "a/b/c/d", "\N{FULLWIDTH COMMERCIAL AT}")
)
SEEDS = tuple(
    bytes([kind]) + text.encode()
    for kind, texts in enumerate((TEXTS + KNOWN["url"], ("a/b/c/d", *TEXTS), ("tier=gold", "a/b.c=", *TEXTS)))
    for text in texts
)
VALIDATOR = protovalidate.Validator()
KEY = route_pb2.RouteKey(tenant="a", service="b", env="c", version="d")


def check(data: bytes) -> None:
    """Ask everybody whether the text is a URL, a key or a label, as the first byte says."""
    text = data[1:].decode("utf-8", "replace")
    (_check_url, _check_key, _check_label)[data[0] % 3 if data else 0](text)


def _check_url(url: str) -> None:
    problem = rules.url_problem(url)
    if problem:
        assert CANARY not in problem
        return
    assert len(url) <= 2048
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs", "Zs", "Zl", "Zp"} for character in url)
    parts = urlsplit(url)
    assert parts.scheme
    assert parts.hostname
    assert parts.username is None
    assert parts.password is None
    assert url.lower().startswith(f"{parts.scheme}://")
    assert _accepts(pb.CreateRequest(key=KEY, url=url)), "the protos differ"
    _check_other_parser(url)


def _check_other_parser(url: str) -> None:
    # What others take for credentials must be none either: they may be who opens the URL.
    try:
        other = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return
    assert not other.userinfo


def _check_key(text: str) -> None:
    ours = _server_key(text)
    assert ours == _client_key(text), "client and server differ"
    parts = text.split("/")
    if len(parts) == 4:
        key = route_pb2.RouteKey(tenant=parts[0], service=parts[1], env=parts[2], version=parts[3])
        assert _accepts(pb.GetRequest(key=key)) == (ours is not None), "the protos differ"
    assert ours in (None, text), "a key does not come back as it was"


def _check_label(text: str) -> None:
    name, _, value = text.partition("=")
    request = pb.CreateRequest(key=KEY, url="https://a.internal", labels={name: value})
    assert _accepts(request) == (rules.label_problem(name, value) is None), "the protos differ"


def _server_key(text: str) -> str | None:
    try:
        return str(routes.RouteKey.parse(text))
    except errors.InvalidField:
        return None


def _client_key(text: str) -> str | None:
    try:
        return str(client_keys.RouteKey.parse(text))
    except client_errors.InvalidArgument:
        return None


def _accepts(request: Message) -> bool:
    return not VALIDATOR.collect_violations(request)
