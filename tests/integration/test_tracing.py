"""The spans of calls, and of what they cause as far as the audit log and watchers, on both transports."""

import asyncio
import itertools
import os
import secrets
from collections.abc import Callable, Iterator

import grpc
import httpx
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import watch_pb2
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import RunningServer, serving, settings
from tests.support.tracing import Collected, id_of, links_of, parent_of, trace_of, tracing
from tests.support.waiting import eventually

SERVICE = "pointsman.v1.RouteService"
URL = "https://canary-url.internal"
STATE = "vendor=opaque"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def collected() -> Iterator[Collected]:
    with tracing() as found:
        yield found


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def server(
    request: pytest.FixtureRequest, collected: Collected, engines, template_database: str, kafka_mock: str
) -> Iterator[RunningServer]:
    with fresh_database(template_database) as database_url:
        chosen = settings(
            transport=request.param,
            roles="api,relay,cache,audit",
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            kafka_bootstrap_servers=kafka_mock,
            kafka_topic=f"route-events-{os.urandom(4).hex()}",
            kafka_partitions=1,
        )
        with serving(chosen) as running:
            yield running


@pytest.fixture
def stub(server: RunningServer) -> Iterator[RouteServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield RouteServiceStub(channel)


@pytest.fixture
def key() -> RouteKey:
    return RouteKey(tenant=f"tenant-{next(_numbers)}", service="payments", env="prod", version="v1")


class Caller:
    """A caller with a trace of its own."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace = secrets.token_hex(16)
        self.span = secrets.token_hex(8)
        flags = "01" if sampled else "00"
        self.metadata = (("traceparent", f"00-{self.trace}-{self.span}-{flags}"), ("tracestate", STATE))


def full_consistency(key: RouteKey) -> pb.ResolveRequest:
    return pb.ResolveRequest(key=key, consistency=pb.CONSISTENCY_FULLY_CONSISTENT)


def test_the_tree_of_a_create_from_the_call_to_the_audit_row_and_the_watcher(
    stub: RouteServiceStub, collected: Collected, key: RouteKey
) -> None:
    watch = stub.Watch(watch_pb2.WatchRequest(tenant=key.tenant), timeout=60)
    next(watch)
    caller = Caller()
    stub.Create(pb.CreateRequest(key=key, url=URL, reason="canary-reason"), metadata=caller.metadata)
    change = next(event.changes.changes[0] for event in watch if event.HasField("changes"))
    watch.cancel()

    def is_whole() -> bool:
        return sum(name.strip() == "process " + topic(collected) for name in collected.tree(caller.trace)) == 2

    assert eventually(is_whole, 30), collected.tree(caller.trace)
    call = collected.named(f"{SERVICE}/Create", caller.trace)
    assert parent_of(call) == caller.span
    # What watchers get, and Kafka, leads to the span of the call.
    assert change.traceparent == f"00-{caller.trace}-{id_of(call)}-01"
    assert change.tracestate == STATE

    name = topic(collected)
    assert sorted(collected.tree(caller.trace)) == sorted(
        [
            f"{SERVICE}/Create",
            "  create",
            "    commit",
            "      postgresql session",
            "        postgresql exchange",
            # Of the route, and of its family.
            *["        redis EVALSHA"] * 2,
            "        postgresql exchange",
            *["      redis EVALSHA"] * 2,
            "  send to watchers",
            f"  send {name}",
            # The shared cache, and the audit log.
            f"  process {name}",
            *["    redis EVALSHA"] * 2,
            f"  process {name}",
            "    append to the audit log",
            *("      " + line for line in audit_lines(collected, caller.trace)),
        ]
    ), "\n".join(collected.tree(caller.trace))

    attributes = dict(call.attributes or {})
    assert attributes.pop("pointsman.request_id")
    assert attributes == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Create",
        "rpc.grpc.status_code": 0,
    }
    assert "canary" not in repr([(span.name, span.attributes, span.status.description) for span in collected()])


def topic(collected: Collected) -> str:
    """Return the topic of the changes, by the spans of what is sent to it."""
    sent = [span.name for span in collected() if span.name.startswith("send route-events")]
    return sent[-1].removeprefix("send ") if sent else "?"


def audit_lines(collected: Collected, trace: str) -> list[str]:
    """Return the spans of PostgreSQL below the append: at least the one that stores the row."""
    lines = collected.tree(trace)
    begin = lines.index("    append to the audit log") + 1
    below = [line[6:] for line in itertools.takewhile(lambda line: line.startswith("      "), lines[begin:])]
    assert "postgresql session" in below
    return below


def test_the_trees_of_a_resolve_by_the_layer_that_answers(
    stub: RouteServiceStub, server: RunningServer, collected: Collected, key: RouteKey
) -> None:
    stub.Create(pb.CreateRequest(key=key, url=URL))
    local, stored = Caller(), Caller()
    stub.Resolve(pb.ResolveRequest(key=key), metadata=local.metadata)
    stub.Resolve(full_consistency(key), metadata=stored.metadata)
    server.app.local.forget()
    shared = Caller()
    stub.Resolve(pb.ResolveRequest(key=key), metadata=shared.metadata)
    absent = RouteKey(tenant=key.tenant, service="absent", env="prod", version="v1")
    loaded = Caller()
    with pytest.raises(grpc.RpcError):
        stub.Resolve(pb.ResolveRequest(key=absent), metadata=loaded.metadata)

    for caller in (local, stored, shared, loaded):
        collected.named(f"{SERVICE}/Resolve", caller.trace)
    head = [f"{SERVICE}/Resolve", "  resolve"]
    load = ["    load from PostgreSQL", "      postgresql exchange"]
    assert collected.tree(local.trace) == head
    assert collected.tree(stored.trace) == [*head, *load]
    assert collected.tree(shared.trace) == [*head, "    load from Redis", "      redis EVALSHA"]
    tree = collected.tree(loaded.trace)
    assert tree == [*head, "    load from Redis", "      redis EVALSHA", *load, "    redis EVALSHA"]

    sources = [collected.named("resolve", caller.trace) for caller in (local, stored, shared, loaded)]
    found = [dict(span.attributes or {}) for span in sources]
    assert [each["pointsman.source"] for each in found] == ["LOCAL", "POSTGRES", "REDIS", "POSTGRES"]
    assert found[0]["pointsman.route.key"] == f"{key.tenant}/payments/prod/v1"
    # A refusal for the caller's reasons is no failure of the server.
    refused = collected.named(f"{SERVICE}/Resolve", loaded.trace)
    assert (refused.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert refused.status.is_unset


def test_a_stream_is_one_span_until_it_ends(stub: RouteServiceStub, collected: Collected, key: RouteKey) -> None:
    caller = Caller()
    watch = stub.Watch(watch_pb2.WatchRequest(tenant=key.tenant), timeout=60, metadata=caller.metadata)
    next(watch)
    assert not any(span.name == f"{SERVICE}/Watch" for span in collected(caller.trace))
    watch.cancel()

    span = collected.named(f"{SERVICE}/Watch", caller.trace)
    assert parent_of(span) == caller.span
    assert (span.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]


def test_callers_whose_writes_share_a_transaction_find_it_from_their_own_traces(
    stub: RouteServiceStub, server: RunningServer, collected: Collected, key: RouteKey
) -> None:
    """The first write holds the clock while the others wait, so they are one group."""
    callers = [Caller() for _ in range(3)]
    keys = [RouteKey(tenant=key.tenant, service="s", env="prod", version=f"v{number}") for number in range(3)]

    async def hold_and_write() -> None:
        async with server.app.database.connection() as connection:
            await connection.execute("SELECT FROM clock FOR NO KEY UPDATE")
            first = stub.Create.future(pb.CreateRequest(key=key, url=URL), timeout=30)
            await wait_for(lambda: len(server.app.committer._groups._running) == 1)
            calls = [
                stub.Create.future(pb.CreateRequest(key=each, url=URL), metadata=caller.metadata, timeout=30)
                for each, caller in zip(keys, callers, strict=True)
            ]
            await wait_for(lambda: len(server.app.committer._groups._waiting) == 3)
        await wait_for(lambda: all(call.done() for call in (first, *calls)))

    server.run(hold_and_write())
    waited = [collected.named("create", caller.trace) for caller in callers]
    (batch,) = [span for caller in callers for span in collected(caller.trace) if span.name == "commit"]

    assert sorted(links_of(batch)) == sorted(map(id_of, waited))
    others = [span for span in waited if trace_of(span) != trace_of(batch)]
    assert len(others) == 2
    assert all(links_of(span) == [id_of(batch)] for span in others)


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process and thread change it
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("metadata", [(), Caller(sampled=False).metadata])
def test_what_the_caller_does_not_sample_leaves_no_span_and_keeps_its_trace(
    stub: RouteServiceStub, collected: Collected, key: RouteKey, metadata
) -> None:
    stub.Create(pb.CreateRequest(key=key, url=URL), metadata=metadata)
    for request in (pb.ResolveRequest(key=key), full_consistency(key)):
        stub.Resolve(request, metadata=metadata)
    (change,) = stub.ListChanges(pb.ListChangesRequest(tenant=key.tenant)).changes

    assert collected(change.traceparent[3:35]) == []
    assert change.traceparent[3:35]
    assert change.traceparent == dict(metadata).get("traceparent", change.traceparent)
    # Sampled is the lowest bit.
    assert not int(change.traceparent[53:] or "0", 16) & 1


def test_the_latency_histograms_name_sampled_calls_as_examples(
    stub: RouteServiceStub, server: RunningServer, key: RouteKey
) -> None:
    caller = Caller()
    stub.Create(pb.CreateRequest(key=key, url=URL), metadata=caller.metadata)
    stub.Resolve(pb.ResolveRequest(key=key), metadata=caller.metadata)
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    exposed = httpx.get(f"{server.http}/metrics", headers=accept).text
    plain = httpx.get(f"{server.http}/metrics").text

    examples = [line for line in exposed.splitlines() if f'trace_id="{caller.trace}"' in line]
    named = {line.partition("_bucket{")[0] for line in examples}
    assert named == {"grpc_server_handling_seconds", "pointsman_resolve_seconds", "pointsman_write_seconds"}
    assert caller.trace not in plain
