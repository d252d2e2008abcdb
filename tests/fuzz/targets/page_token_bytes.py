"""Page tokens as bytes, raw or forged: the digest in a token is no secret, so a position may be anything.

The first byte chooses whose token it is, and whether the rest is the token or the position in one.
"""

import base64

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.errors import InvalidField
from pointsman_server.domain.routes import RouteKey
from pointsman_server.rpc import pages
from tests.fuzz.calls import check_told

MODULES = ("pointsman_server.rpc.pages", "pointsman_server.domain.routes")
LONGEST = 1024
SEEDS = (
    *(b"\x00" + token for token in (b"", b"AAAA", b"====", b"A", b"\xff\xfe", b"=", b"AAAAAAAAAAAAAAAA")),
    *(b"\x02" + position for position in (b"a/b/c/d", b"", b"a/b/c", b"a/b/c/\n", b"\xff")),
    *(b"\x01" + token for token in (b"AAAA", b"a b")),
    *(b"\x03" + number for number in (b"1", b"0", b"-1", b"9223372036854775807", b"9223372036854775808", b"9" * 900)),
    *(b"\x03" + number for number in ("٣".encode(), b"1_0", b" 1", b"+1", b"0x1", b"\xb2")),
)
ROUTES, CHANGES = pb.ListRequest(tenant="a\N{BULLET}"), pb.ListChangesRequest(actor="ann", newest_first=True)


def check(data: bytes) -> None:
    """Ask for the page that the bytes lead to."""
    of_changes, forged = (data[0] & 1, data[0] & 2) if data else (0, 0)
    rest = data[1:]
    if of_changes:
        _check_changes(_forged(rest, pages._change_scope(CHANGES)) if forged else rest.decode("utf-8", "replace"))
    else:
        _check_routes(_forged(rest, pages._route_scope(ROUTES)) if forged else rest.decode("utf-8", "replace"))


def _forged(position: bytes, scope: tuple[object, ...]) -> str:
    return base64.urlsafe_b64encode(pages._scope_digest(scope) + position).decode().rstrip("=")


def _check_routes(token: str) -> None:
    request = pb.ListRequest(tenant=ROUTES.tenant, page_token=token)
    try:
        after = pages.route_query(request).after
    except InvalidField as error:
        _judge(error)
        return
    assert (after is None) == (not token)
    assert after is None or RouteKey.parse(str(after)) == after


def _check_changes(token: str) -> None:
    request = pb.ListChangesRequest(actor=CHANGES.actor, newest_first=True, page_token=token)
    try:
        query = pages.change_query(request)
    except InvalidField as error:
        _judge(error)
        return
    assert query.after_revision == 0
    assert bool(query.before_revision) == bool(token)
    assert 0 <= query.before_revision < 2**63


def _judge(error: InvalidField) -> None:
    assert [violation.field for violation in error.violations] == ["page_token"]
    check_told([str(error)], None)
