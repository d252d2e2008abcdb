"""Streams as clients make them, and as nobody should: many, slow, in floods, and cut off."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.server import SERVICE
from pointsman_server.xds.stream import LONGEST_NAME, MOST_NAMES
from tests.support import http2
from tests.support.changes import make_change
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually
from tests.support.xds_streams import PATIENCE_SECONDS, XdsStream, stream
from tests.support.xds_world import CDS, EDS, LDS, RDS, request

STREAMS = 200
ROOT = "v1~prod~pay~acme"
# A connection that no other channel shares.
ALONE = (("grpc.use_local_subchannel_pool", 1),)
KINDS = (LDS, RDS, CDS, EDS)


@pytest.fixture
def server(database_url: str) -> Iterator[RunningServer]:
    with serving(settings(roles="xds", database_url=database_url, drain_seconds=5)) as server:
        yield server


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.xds) as channel:
        yield channel


def watched(server: RunningServer) -> tuple[int, int]:
    """Return how many streams there are, and how many names they watch."""
    assert server.app.xds
    return len(server.app.xds.clients), server.app.xds.loader.snapshot.name_count


def ended(client: XdsStream) -> grpc.RpcError:
    def read_all() -> None:
        while True:
            client.read()

    with pytest.raises(grpc.RpcError) as raised:
        read_all()
    return raised.value


async def subscribed(call: Any, *names: str) -> None:
    """Ask for all of some names, and acknowledge it."""
    for kind in KINDS:
        await call.write(request(kind, *names))
    lacking = {(str(kind), name) for kind in KINDS for name in names}
    while lacking:
        response = await call.read()
        got = {each for each in lacking if each[0] == response.type_url}
        lacking -= got
        await call.write(request(response.type_url, *names, nonce=response.nonce, version=response.version_info))


def test_many_streams_are_answered_told_of_a_change_and_leave_nothing(server: RunningServer) -> None:
    before = server.run(count_tasks())
    # On the loop of the server: grpc.aio works on one at a time.
    server.run(serve_many(server))
    assert eventually(lambda: watched(server) == (0, 0))
    assert eventually(lambda: server.run(count_tasks()) <= before)


async def serve_many(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.xds) as channel:
        open_stream = channel.stream_stream(
            f"/{SERVICE}/StreamAggregatedResources",
            request_serializer=pb.DiscoveryRequest.SerializeToString,
            response_deserializer=pb.DiscoveryResponse.FromString,
        )
        calls = [open_stream() for _ in range(STREAMS)]
        names = [(ROOT, *(f"v{number % 7 + each}~prod~ads~acme" for each in range(4))) for number in range(STREAMS)]
        await asyncio.gather(*(subscribed(call, *its) for call, its in zip(calls, names, strict=True)))
        assert watched(server) == (STREAMS, 11)
        change(server)
        # Its URL is one of https: such a client is told that it cannot be led there.
        assert {(await call.read()).type_url for call in calls} == {str(RDS)}
        for call in calls:
            call.cancel()


def test_a_client_never_gets_what_is_older_than_what_it_has(server: RunningServer, channel: grpc.Channel) -> None:
    with stream(channel) as client:
        client.subscribe(RDS, ROOT)
        content, revision, epoch = client.read().version_info.split(".")
    later = int(revision) + 1
    with stream(channel) as returned, stream(channel) as other:
        # It was at another server, which has followed further.
        returned.subscribe(RDS, ROOT, version=f"{content}.{later}.{epoch}")
        other.subscribe(RDS, ROOT)
        first = other.read()
        assert first.version_info == f"{content}.{revision}.{epoch}"
        other.acknowledge(first)
        change(server)
        now = returned.read()
        assert now.type_url == RDS
        assert now.version_info.partition(".")[2] == f"{later}.{epoch}"
        assert now.version_info == other.read().version_info


async def count_tasks() -> int:
    return len(asyncio.all_tasks())


def change(server: RunningServer) -> None:
    """Create the route of ``ROOT``."""
    assert server.app.xds
    snapshot = server.app.xds.loader.snapshot
    snapshot.apply([make_change(snapshot.clock.revision + 1, epoch=snapshot.clock.epoch)])


def test_a_client_that_does_not_read_is_disconnected_and_others_are_served(database_url: str) -> None:
    asked = request(CDS, *(f"v{number}~prod~{'x' * 60}~{'y' * 60}" for number in range(MOST_NAMES)))
    with (
        serving(settings(roles="xds", database_url=database_url, unread_seconds=1)) as server,
        grpc.insecure_channel(server.xds) as channel,
        http2.connected(server.xds, {http2.INITIAL_WINDOW: 0}) as slow,
    ):
        assert slow.until(lambda: slow.settings and slow.settings_acked)
        number = slow.stream()
        slow.send(slow.begin(number, f"/{SERVICE}/StreamAggregatedResources"))
        slow.upload(number, http2.message(asked.SerializeToString()), ended=False)
        assert eventually(lambda: watched(server) == (1, MOST_NAMES))
        with stream(channel) as client:
            assert client.status(ROOT) == 5
            assert slow.until(lambda: slow.gone)
            assert eventually(lambda: watched(server) == (1, 1))
            client.subscribe(LDS, ROOT)
            assert client.read().type_url == LDS


def test_a_flood_of_requests_keeps_nobody_waiting(server: RunningServer, channel: grpc.Channel) -> None:
    with (
        grpc.insecure_channel(server.xds, [("grpc.use_local_subchannel_pool", 1)]) as another,
        stream(another) as flood,
    ):
        for number in range(20_000):
            flood.subscribe(EDS, f"v{number % 50}~prod~payments~team-a")
        for _ in range(20):
            with stream(channel) as client:
                assert client.status(ROOT) == 5
        # It is served too, as fast as any other.
        assert flood.read().type_url == EDS
        assert watched(server)[1] <= 2


def test_a_drain_sends_clients_to_other_servers(database_url: str) -> None:
    with serving(settings(roles="xds", database_url=database_url)) as server:
        channel = grpc.insecure_channel(server.xds, [("grpc.enable_retries", 0)])
        with stream(channel) as client, stream(channel) as new:
            assert client.status(ROOT) == 5
            assert server.app.xds
            server.run(server.app.xds.admission.close(5))
            error = ended(client)
            assert (error.code(), error.details()) == (
                grpc.StatusCode.UNAVAILABLE,
                "this server is shutting down: ask another one",
            )
            new.subscribe(RDS, ROOT)
            assert ended(new).code() is grpc.StatusCode.UNAVAILABLE
        channel.close()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([f"a{number}" for number in range(MOST_NAMES + 1)], "1001 names of one type: a stream may ask for 1000"),
        (["a", "x" * (LONGEST_NAME + 1)], r"resource_names\[1\]: 1025 characters long: a name has at most 1024"),
    ],
)
def test_a_request_beyond_the_limits_says_what_is_wrong(channel: grpc.Channel, names: list[str], text: str) -> None:
    with stream(channel) as client:
        client.subscribe(RDS, *names)
        error = ended(client)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(text, error.details() or "")


def test_as_many_names_as_are_allowed_are_served(channel: grpc.Channel) -> None:
    with stream(channel) as client:
        client.subscribe(EDS, *(f"a{number}" for number in range(MOST_NAMES)))
        assert len(client.read().resources) == MOST_NAMES


def test_incremental_xds_is_refused_in_words(channel: grpc.Channel) -> None:
    delta = channel.stream_stream(f"/{SERVICE}/DeltaAggregatedResources")
    with pytest.raises(grpc.RpcError) as raised:
        next(delta(iter([b""]), timeout=PATIENCE_SECONDS))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "StreamAggregatedResources" in (raised.value.details() or "")


def test_bytes_that_are_no_request_end_the_stream(channel: grpc.Channel) -> None:
    requests = channel.stream_stream(f"/{SERVICE}/StreamAggregatedResources")
    with pytest.raises(grpc.RpcError) as raised:
        next(requests(iter([b"\xff\xff"]), timeout=PATIENCE_SECONDS))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
