"""What a stream begins with."""

import asyncio
from typing import Any

import pytest

from pointsman_server.domain.errors import InvalidField, StoreUnavailable
from pointsman_server.domain.identity import Scope
from pointsman_server.ports.store import Clock
from pointsman_server.xds.clients.registry import Clients
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.server import KEPT, LARGEST_NODE, DiscoveryServer
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.table import Table
from pointsman_server.xds.views import ClientKind
from tests.support.waiting import becomes
from tests.support.xds_fake_stream import Transport
from tests.support.xds_world import CDS, LDS, RDS, request

ROOT = "v1~prod~payments~team-a"


class Anybody:
    subject = "anybody"

    def __init__(self) -> None:
        self.readable = True

    def may_read(self, _scope: Scope) -> bool:
        return self.readable

    async def verify(self) -> bool:
        return False


class Call:
    """One call of StreamAggregatedResources."""

    def __init__(self, *, loaded: bool = True, **options: Any) -> None:
        self.snapshot = ResourceSnapshot(Table(Clock("e", 1)))
        self.transport = Transport()
        self.caller = Anybody()
        self.loaded = asyncio.Event()
        if loaded:
            self.loaded.set()
        self.clients = Clients(lambda: self.snapshot.clock)
        self.server = DiscoveryServer(
            lambda: self.snapshot,
            self.loaded.wait,
            lambda _context: self.caller,
            observers=(self.clients,),
            **options,
        )

    def peer(self) -> str:
        return "ipv4:10.0.0.1:1"

    async def write(self, body: bytes) -> None:
        await self.transport.write(body)

    async def serve(self) -> None:
        async with asyncio.timeout(10):
            await self.server.stream(aiter(self.transport), self)


async def test_every_response_says_who_answers() -> None:
    call = Call()
    call.transport.ask(RDS, ROOT)
    call.transport.end()
    serving = asyncio.create_task(call.serve())
    assert (await call.transport.read()).control_plane.identifier == "pointsman"
    await serving


async def test_streams_do_not_share_nonces() -> None:
    nonces = set()
    for _ in range(2):
        call = Call()
        call.transport.ask(RDS, ROOT)
        serving = asyncio.create_task(call.serve())
        nonces.add((await call.transport.read()).nonce)
        call.transport.end()
        await serving
    assert len(nonces) == 2


async def test_the_client_is_read_from_the_first_request_alone() -> None:
    call = Call()
    first = request(CDS, ROOT)
    first.node.id, first.node.user_agent_name = "x" * 1_000, "gRPC Python"
    later = request(RDS, ROOT)
    later.node.id, later.node.user_agent_name = "another", "envoy"
    call.transport.requests.put_nowait(first)
    call.transport.requests.put_nowait(later)
    serving = asyncio.create_task(call.serve())
    await call.transport.read()
    await call.transport.read()
    (stream,) = (client.stream for client in call.clients)
    assert stream.client.node == "x" * KEPT
    assert (stream.client.agent, stream.client.peer) == ("gRPC Python", call.peer())
    assert stream.client.view.kind is ClientKind.GRPC
    call.transport.end()
    await serving
    assert not call.clients


async def test_an_envoy_says_its_version_in_numbers() -> None:
    call = Call()
    first = request(LDS)
    first.node.user_agent_name = "envoy"
    version = first.node.user_agent_build_version.version
    version.major_number, version.minor_number, version.patch = 1, 39, 3
    call.transport.requests.put_nowait(first)
    serving = asyncio.create_task(call.serve())
    await call.transport.read()
    assert [client.stream.client.agent for client in call.clients] == ["envoy 1.39.3"]
    call.transport.end()
    await serving


async def test_a_first_request_without_a_node_is_served() -> None:
    call = Call()
    call.transport.ask(LDS, ROOT)
    serving = asyncio.create_task(call.serve())
    assert len((await call.transport.read()).resources) == 1
    call.transport.end()
    await serving


async def test_an_envoy_may_ask_for_all() -> None:
    call = Call()
    first = request(LDS)
    first.node.user_agent_name = "envoy"
    call.transport.requests.put_nowait(first)
    serving = asyncio.create_task(call.serve())
    assert len((await call.transport.read()).resources) == 1
    call.transport.end()
    await serving


async def test_a_client_that_ends_before_its_first_request_is_served_nothing() -> None:
    call = Call()
    call.transport.end()
    await call.serve()
    assert call.transport.responses.empty()


async def test_a_node_that_is_too_large_is_refused() -> None:
    call = Call()
    first = request(RDS, ROOT)
    first.node.metadata["x"] = "x" * LARGEST_NODE
    longest = 2 * LARGEST_NODE - first.node.ByteSize()
    first.node.metadata["x"] = "x" * longest
    assert first.node.ByteSize() == LARGEST_NODE
    call.transport.requests.put_nowait(first)
    call.transport.end()
    await call.serve()
    first.node.metadata["x"] += "x"
    call.transport.requests.put_nowait(first)
    with pytest.raises(InvalidField, match=rf"node: {LARGEST_NODE + 1} bytes"):
        await call.serve()


async def test_nothing_is_answered_before_the_table_is_loaded() -> None:
    call = Call(loaded=False)
    call.transport.ask(RDS, ROOT)
    serving = asyncio.create_task(call.serve())
    await asyncio.sleep(0)
    assert call.transport.responses.empty()
    call.loaded.set()
    await call.transport.read()
    call.transport.end()
    await serving


async def test_a_table_that_is_not_loaded_for_long_sends_clients_away() -> None:
    call = Call(loaded=False, load_seconds=0.001)
    call.transport.ask(RDS, ROOT)
    with pytest.raises(StoreUnavailable):
        await call.serve()


async def test_what_a_client_may_read_can_change() -> None:
    call = Call()
    call.transport.ask(RDS, ROOT)
    serving = asyncio.create_task(call.serve())
    before = await call.transport.read()
    call.transport.ask(RDS, ROOT, nonce=before.nonce)

    async def acknowledged() -> bool:
        return next(iter(call.clients)).stream.settled

    assert await becomes(acknowledged)
    call.caller.readable = False
    next(iter(call.clients)).stream.check()
    after = await call.transport.read()
    faults = [
        pb.HttpFault.FromString(
            pb.RouteConfiguration.FromString(each.resources[0].value)
            .virtual_hosts[0]
            .typed_per_filter_config["fault"]
            .value
        ).abort.grpc_status
        for each in (before, after)
    ]
    assert faults == [5, 7]
    call.transport.end()
    await serving
