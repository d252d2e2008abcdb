"""Requests of an xDS client as bytes: a stream of them, each after its length, on a table with a few routes."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from pointsman_server.domain.errors import InvalidField
from pointsman_server.ports.store import Clock
from pointsman_server.xds.names import WILDCARD
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.session import MOST_TEXT, Push, Session
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.sources.envoy_source import EnvoySource
from pointsman_server.xds.sources.grpc_source import GrpcSource
from pointsman_server.xds.stream import check_names, response
from pointsman_server.xds.table import Table
from pointsman_server.xds.version_info import clock_of, version_info
from pointsman_server.xds.views import ClientKind, view_of
from tests.support.changes import make_change
from tests.support.xds_world import CDS, EDS, LDS, RDS, request

MODULES = (
    "pointsman_server.xds.names",
    "pointsman_server.xds.order",
    "pointsman_server.xds.session",
    "pointsman_server.xds.subscription",
    "pointsman_server.xds.version_info",
    "pointsman_server.xds.views",
)
LONGEST = 2048
ROOT, FAMILY = "v1~prod~pay~acme", "prod~pay~acme"
NEW_STYLE = f"xdstp://pointsman/{LDS.removeprefix('type.googleapis.com/')}/{ROOT}"
NODE = "node-1"
CLOCK = Clock("e1", 2)


def framed(*requests: Any) -> bytes:
    return b"".join(len(each := said.SerializeToString()).to_bytes(2, "big") + each for said in requests)


def of_envoy(said: Any) -> Any:
    said.node.user_agent_name = "envoy"
    own = said.node.metadata.get_or_create_struct("pointsman")
    own["listen"], own["ca_file"] = "127.0.0.1:10000", "/ca.pem"
    own.get_or_create_list("families").extend(["acme/*/prod"])
    return said


SEEDS = (
    framed(*(request(kind, ROOT, node=NODE) for kind in (LDS, RDS, CDS, EDS))),
    framed(request(LDS, NEW_STYLE), request(CDS, f"{ROOT}~~1", f"{FAMILY}~~m0", FAMILY), request(LDS, nonce="1")),
    framed(of_envoy(request(CDS)), request(LDS, WILDCARD), request(RDS, "pointsman"), request(EDS, ROOT, FAMILY)),
    framed(request(EDS, "a", "a", ""), request(EDS, nonce="1", error="no"), request(EDS, "b", nonce="1")),
    framed(request(CDS, WILDCARD, "a"), request(CDS, "a", nonce="1", version="1.2.e1"), request(CDS, nonce="2")),
    framed(request("type.googleapis.com/other", "a"), request(RDS, "x" * 1025)),
    b"\xff\xff",
)
WORDS = (*(str(kind).encode() for kind in ResourceType), b"*", b"~~", b"~~1", b"~~m1", b"~", ROOT.encode(), b"xdstp://")


def check(data: bytes) -> None:
    """Any requests are answered by what they ask for, and once they are acknowledged, nothing more is sent."""
    requests = list(parsed(data))
    if not requests:
        return
    view = view_of(requests[0].node)
    table = Table(Clock("e1", 0))
    table.apply([make_change(1), make_change(2, "ads")])
    snapshot = ResourceSnapshot(table)
    source_of = EnvoySource if view.kind is ClientKind.ENVOY else GrpcSource
    source = source_of(snapshot, view, lambda scope: scope.tenant == "acme")
    session = Session(source, warms=view.kind is ClientKind.ENVOY)
    unanswered: dict[ResourceType, Push] = {}
    for number, said in enumerate(requests):
        try:
            check_names(said.resource_names, lambda: 10)
        except InvalidField:
            return
        answered = unanswered.get(said.type_url)
        if answered and said.response_nonce == answered.nonce:
            del unanswered[said.type_url]
        if (clock := clock_of(said.version_info)) is not None:
            assert clock_of(version_info("", clock)) == clock
        session.receive(said)
        take(session, unanswered)
        session.change((ROOT, FAMILY) if number % 2 else ("v1~prod~ads~acme",))
    settle(session, unanswered, {said.type_url: said.resource_names for said in requests})


def parsed(data: bytes) -> Iterator[Any]:
    while len(data) >= 2:
        size, data = int.from_bytes(data[:2], "big"), data[2:]
        try:
            yield pb.DiscoveryRequest.FromString(data[:size])
        except DecodeError:
            return
        data = data[size:]


def take(session: Session, unanswered: dict[ResourceType, Push], *, hold: bool = True) -> None:
    for push in session.take(hold=hold):
        assert push.kind not in unanswered, "two responses without an answer"
        unanswered[push.kind] = push
        read = pb.DiscoveryResponse.FromString(response(push, CLOCK))
        assert (read.nonce, read.type_url, len(read.resources)) == (push.nonce, push.kind, len(push.resources))
        names = [each.name for each in push.resources]
        assert len(names) == len(set(names)), "a name twice in a response"
        wanted = {each.name for each in session.states() if each.kind is push.kind}
        assert wanted == {*names} if push.kind.is_complete else wanted >= {*names}


def settle(session: Session, unanswered: dict[ResourceType, Push], names: dict[str, Any]) -> None:
    for _ in range(100):
        if not unanswered and not session.holds:
            break
        for kind, push in list(unanswered.items()):
            del unanswered[kind]
            session.receive(request(kind, *names[kind], nonce=push.nonce))
        take(session, unanswered, hold=bool(unanswered))
    refusals = session.refusals
    assert session.settled or refusals
    assert all(len(text) <= MOST_TEXT for text in refusals.values())
