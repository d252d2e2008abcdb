"""Any question about xDS clients is answered or refused, and no answer names what the caller may not read."""

import asyncio

from google.protobuf.message import DecodeError, Message

from pointsman.v1 import xds_service_pb2 as pb
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients.status import ClientStatusRequest, client_status
from pointsman_server.xds.clients.xds_service import XdsMethods
from pointsman_server.xds.protocol.types import ResourceType
from tests.support.changes import make_change
from tests.support.xds_connections import Connections, FakeCaller

MODULES = ["pointsman_server.xds.clients", "pointsman_server.xds.names"]

OURS, THEIRS = "v1~prod~pay~acme", "v1~prod~secret~other"
READER = FakeCaller("reader", ["acme"])


async def _connected() -> Connections:
    world = Connections(make_change(1), make_change(2, "Pay"))
    world.clients.process = "a"
    for node in ("checkout-1", "checkout-2"):
        connection = world.connect(node, subject=node)
        await connection.ask(ResourceType.RDS, OURS, THEIRS, "nonsense")
        await connection.answer(f"{THEIRS} is strange")
    return world


LOOP = asyncio.new_event_loop()
WORLD = LOOP.run_until_complete(_connected())
METHODS = XdsMethods(WORLD.clients, lambda: WORLD.snapshot)


def _list(request: bytes) -> Message:
    return LOOP.run_until_complete(METHODS.list_clients(pb.ListXdsClientsRequest.FromString(request), READER))


def _explain(request: bytes) -> Message:
    return LOOP.run_until_complete(METHODS.explain(pb.ExplainXdsRequest.FromString(request), READER))


def _status(request: bytes) -> Message:
    asking = client_status(ClientStatusRequest.FromString(request), WORLD.clients, READER, FairShare())
    answer: Message = LOOP.run_until_complete(asking)
    return answer


QUESTIONS = (_list, _explain, _status)
SEEDS = [
    b"\x00",
    b"\x00" + pb.ListXdsClientsRequest(name_prefix=OURS, page_size=1, page_token="a-1").SerializeToString(),
    *(b"\x01" + pb.ExplainXdsRequest(key=key).SerializeToString() for key in ("acme/pay/prod/v1", OURS, THEIRS)),
    b"\x02",
    b"\x02" + ClientStatusRequest(node_matchers=[{"node_id": {"prefix": "check"}}]).SerializeToString(),
]


def check(value: bytes) -> None:
    """Ask, by the first byte, one of the questions."""
    if not value:
        return
    try:
        answer = QUESTIONS[value[0] % len(QUESTIONS)](value[1:])
    except (DecodeError, PointsmanError):
        return
    assert b"secret" not in answer.SerializeToString()
