"""What bounds a watch, and what ends it: slow clients, snapshots, compaction, permission, a drain, keepalives."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.watch_pb2 import ResumeToken, WatchRequest, WatchResponse
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.events.watch import snapshots, watcher
from pointsman_server.ports.credentials import KeyDraft
from pointsman_server.rpc.interceptors.admission import STREAM_PAUSE_SECONDS
from tests.support.engines import fresh_database, fresh_redis
from tests.support.fakes import Wire
from tests.support.refusals import read
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

SECONDS = 60.0
KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")

Serve = Callable[..., contextlib.AbstractContextManager[RunningServer]]


@pytest.fixture(params=["grpcio", "envoy"])
def serve(request: pytest.FixtureRequest, engines: Any, template_database: str) -> Iterator[Serve]:
    """Give what runs a server on an empty database."""
    with fresh_database(template_database) as database_url:
        defaults = {"database_url": database_url, "redis_url": fresh_redis(engines.urls["REDIS_URL"])}
        yield lambda **chosen: serving(settings(**defaults | {"transport": request.param} | chosen))


@pytest.fixture
def server(serve: Serve) -> Iterator[RunningServer]:
    with serve() as running:
        yield running


@contextlib.contextmanager
def stub_of(server: RunningServer, *options: tuple[str, int]) -> Iterator[Any]:
    """Give a stub on a connection of its own."""
    with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1), *options]) as channel:
        yield RouteServiceStub(channel)


def put(stub: Any, number: int = 0, *, large: bool = False) -> int:
    """Change the route; ``large`` makes a change of 30 kB."""
    labels = pb.Labels(labels={f"label-{each}": "x" * 256 for each in range(60)}) if large else None
    url = f"https://n{number}-{time.time_ns()}.internal"
    request = pb.UpdateRequest(key=KEY, url=url, labels=labels, allow_missing=True)
    return int(stub.Update(request, timeout=SECONDS).route.revision)


def watch(stub: Any, resume: ResumeToken | None = None, **options: Any) -> Any:
    return stub.Watch(WatchRequest(tenant=KEY.tenant, resume=resume), timeout=SECONDS, **options)


def until(stream: Any, kind: str) -> WatchResponse:
    return next(event for event in stream if event.WhichOneof("event") == kind)


def token_of(event: WatchResponse) -> ResumeToken:
    return getattr(event, str(event.WhichOneof("event"))).as_of  # type: ignore[no-any-return]


def test_a_slow_client_is_ended_and_resumes_without_loss(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "MOST_BYTES", 500_000)
    with stub_of(server) as writer, stub_of(server) as reader:
        put(writer)
        stream = watch(reader)
        token = token_of(until(stream, "checkpoint"))
        expected = [put(writer, number, large=True) for number in range(300)]
        received: list[int] = []
        with pytest.raises(grpc.RpcError) as ended:  # noqa: PT012
            for event in stream:
                received += [change.revision for change in event.changes.changes]
                token = token_of(event)
        assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert read(ended.value).metadata["limit"] == "watch_queue"
        assert received == expected[: len(received)]
        assert len(received) < len(expected)
        assert server.app.watch.hub.watchers == 0

        again = watch(reader, token)
        while len(received) < len(expected):
            received += [change.revision for change in until(again, "changes").changes.changes]
        assert received == expected
        again.cancel()


def test_snapshots_are_sent_to_a_few_at_once(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "PATIENCE_SECONDS", 0.1)
    turns = contextlib.AsyncExitStack()

    async def take_all() -> None:
        for _ in range(server.app.settings.watch_snapshots):
            await turns.enter_async_context(server.app.watch.snapshots.turn())

    server.run(take_all())
    with stub_of(server) as stub:
        with pytest.raises(grpc.RpcError) as refused:
            next(watch(stub))
        refusal = read(refused.value)
        assert (refusal.code, refusal.metadata["limit"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "watch_snapshots")
        assert refusal.retry_seconds
        assert refusal.retry_seconds >= snapshots.RETRY_SECONDS[0]
        server.run(turns.aclose())
        stream = watch(stub)
        assert until(stream, "end_of_snapshot").end_of_snapshot.route_count == 0
        stream.cancel()


@pytest.mark.parametrize("bound", [{"watch_history_changes": 5}, {"watch_history_hours": 1e-6}])
def test_compacted_history_ends_a_resume_and_not_a_stream(serve: Serve, bound: dict[str, float]) -> None:
    with serve(watch_recent_changes=1, **bound) as server, stub_of(server) as stub:
        put(stub)
        stream = watch(stub)
        token = token_of(until(stream, "checkpoint"))
        revisions = [put(stub, number) for number in range(10)]
        received = [change.revision for _ in revisions for change in until(stream, "changes").changes.changes]
        assert received == revisions
        with pytest.raises(grpc.RpcError) as refused:
            next(watch(stub, token))
        assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert read(refused.value).reason == "REVISION_COMPACTED"
        stream.cancel()


def test_an_import_is_one_set_in_parts(server: RunningServer) -> None:
    count = 10_000
    keys = [RouteKey(tenant="team-a", service=f"s{number}", env="prod", version="v1") for number in range(count)]
    routes = [pb.ImportedRoute(key=key, url="https://imported.internal") for key in keys]
    with stub_of(server, ("grpc.max_send_message_length", -1)) as stub:
        stream = watch(stub)
        until(stream, "checkpoint")
        stub.Import(pb.ImportRequest(routes=routes), timeout=SECONDS)
        parts = []
        while not parts or parts[-1].partial:
            parts.append(until(stream, "changes").changes)
        stream.cancel()
    assert len(parts) > 5
    assert [part.HasField("as_of") for part in parts] == [False] * (len(parts) - 1) + [True]
    revisions = [change.revision for part in parts for change in part.changes]
    assert revisions == list(range(revisions[0], revisions[0] + count))
    assert parts[-1].as_of.revision == revisions[-1]


def test_streams_hear_from_the_server_also_when_nothing_changes(server: RunningServer) -> None:
    server.app.watch.hub._checkpoint_seconds = 0.2
    with stub_of(server) as stub:
        stream = watch(stub)
        moments = [until(stream, "checkpoint").checkpoint.server_time.ToNanoseconds() for _ in range(5)]
        stream.cancel()
    assert moments == sorted(set(moments))


def test_a_drain_ends_streams_one_after_another(serve: Serve) -> None:
    count = 20

    def end_of(stream: Any) -> tuple[float, grpc.StatusCode]:
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        return time.monotonic(), ended.value.code()

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(count))
        with serve() as server:
            stub = stack.enter_context(stub_of(server))
            streams = [watch(stub) for _ in range(count)]
            for stream in streams:
                until(stream, "checkpoint")
            ending = [pool.submit(end_of, stream) for stream in streams]
        ends = sorted((each.result(SECONDS) for each in ending), key=lambda end: end[0])
    assert {code for _, code in ends} == {grpc.StatusCode.UNAVAILABLE}
    assert ends[-1][0] - ends[0][0] >= 0.5 * count * STREAM_PAUSE_SECONDS


def test_the_age_grows_while_postgresql_is_away_and_streams_stay(serve: Serve, database_url: str) -> None:
    loop = asyncio.new_event_loop()
    port = int(database_url.rpartition(":")[2].partition("/")[0])
    wire = Wire(port)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(SECONDS)

    run(wire.mend())
    try:
        with serve(database_url=database_url.replace(f":{port}/", f":{wire.port}/")) as server, stub_of(server) as stub:
            server.app.watch.hub._checkpoint_seconds = 0.1
            put(stub)
            stream = watch(stub)
            until(stream, "checkpoint")
            run(wire.cut())
            ages = [until(stream, "checkpoint").checkpoint.age.ToMilliseconds() / 1000 for _ in range(30)]
            assert ages[-1] > 1.5
            # What it missed in memory can still be resumed.
            again = watch(stub, token_of(until(stream, "checkpoint")))
            assert until(again, "checkpoint").checkpoint.age.ToMilliseconds() > 1_500
            run(wire.mend())
            assert eventually(lambda: until(stream, "checkpoint").checkpoint.age.ToMilliseconds() < 1_000)
            revision = put(stub)
            assert until(stream, "changes").changes.as_of.revision == revision
            stream.cancel()
            again.cancel()
    finally:
        run(wire.cut())
        loop.call_soon_threadsafe(loop.stop)


POLICY = """
[[grant]]
subjects = ["key:watcher"]
roles = ["reader"]
tenants = ["{tenant}"]
"""


@pytest.mark.parametrize(
    ("ends_by", "code"),
    [("policy", grpc.StatusCode.PERMISSION_DENIED), ("revoked", grpc.StatusCode.UNAUTHENTICATED)],
)
def test_a_stream_ends_within_a_checkpoint_when_it_is_no_longer_allowed(
    serve: Serve, tmp_path: Path, ends_by: str, code: grpc.StatusCode
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.format(tenant="team-a"))
    with serve(api_keys=True, policy_file=policy, access_refresh_seconds=0.1) as server, stub_of(server) as stub:
        store = PostgresApiKeyStore(server.app.database)
        texts = {}
        for name in ("watcher", "other"):
            minted = mint()
            grants = (parse_grant("reader:team-a"),) if name == "other" else ()
            server.run(store.create(KeyDraft(name, grants, "ann", timedelta(days=1)), minted))
            texts[name] = minted.text
        server.run(server.app.access.api_keys.known.renew())
        stream, other = (
            watch(stub, metadata=[("authorization", f"Bearer {texts[name]}")]) for name in ("watcher", "other")
        )
        until(stream, "checkpoint")
        until(other, "checkpoint")
        if ends_by == "policy":
            policy.write_text(POLICY.format(tenant="team-b"))
        else:
            server.run(store.revoke("watcher", "ann"))
        checkpoints = 0
        with pytest.raises(grpc.RpcError) as ended:  # noqa: PT012
            for _ in stream:
                checkpoints += 1
        assert ended.value.code() is code
        # One may be on its way; the next one finds out.
        assert checkpoints <= 2
        until(other, "checkpoint")
        other.cancel()


def test_keepalives_of_client_and_server_do_not_cut_an_idle_stream(serve: Serve) -> None:
    """Ten idle minutes with the defaults of both, at a hundred times their pace; time-outs stay what they are."""
    pace = 100
    server_side = {"keepalive_seconds": 60 / pace, "client_ping_seconds": 10 / pace}
    client_side = [
        ("grpc.keepalive_time_ms", int(11_000 / pace)),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with serve(**server_side) as server, stub_of(server, *client_side) as stub:
        server.app.watch.hub._checkpoint_seconds = 4 / pace
        stream = watch(stub)
        give_up, count = time.monotonic() + 600 / pace, 0
        while time.monotonic() < give_up:
            until(stream, "checkpoint")
            count += 1
        # A third of them is enough to know that it was the same stream, on a busy machine.
        assert count > 600 / 4 / 3
        stream.cancel()
