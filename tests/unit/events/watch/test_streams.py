"""One stream of a watch, on the parts of a server with a store in memory."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from pointsman.v1.watch_pb2 import Reset
from pointsman_server.domain.errors import (
    EpochChanged,
    Overloaded,
    RevisionCompacted,
    RevisionNotReached,
    StoreUnavailable,
)
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.events.watch import change_set, encoding, history, hub, snapshots, streams, watcher
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import ChangeQuery, Clock
from pointsman_server.writes.mutations import Activate, Create, Update
from tests.support.watches import INTENT, Replica, WatchServer, stopped

KEY = RouteKey("team-a", "payments", "prod", "v1")
OTHER = RouteKey("team-b", "payments", "prod", "v1")
SIBLING = KEY._replace(version="v2")


@pytest.fixture
async def server() -> AsyncIterator[WatchServer]:
    one = WatchServer()
    await one.start()
    yield one
    await one.stop()


async def write(server: WatchServer, key: RouteKey, count: int = 1) -> int:
    """Change a route so many times; return the last revision."""
    for _ in range(count):
        url = f"https://at-{server.store.revision}.internal"
        if key in server.store.routes:
            await server.committer.update(Update(key, url), INTENT)
        else:
            await server.committer.create(Create(key, url, {}), INTENT)
    return server.store.revision


async def caught_up(server: WatchServer, replica: Replica) -> None:
    """Let a replica take what it missed, and then end its stream."""
    stream = server.watch(replica)
    await server.settle()
    assert await stopped(stream) is None


async def test_a_snapshot_and_then_a_checkpoint(server: WatchServer) -> None:
    await write(server, KEY)
    replica = Replica(server.eras)
    await caught_up(server, replica)
    assert replica.kinds() == ["snapshot", "end_of_snapshot", "checkpoint"]
    assert list(replica.table) == [KEY]


async def test_a_stream_with_traffic_says_so_first(server: WatchServer) -> None:
    await write(server, KEY)
    replica = Replica(server.eras, Filter(traffic=True))
    await caught_up(server, replica)
    assert replica.kinds() == ["opened", "snapshot", "end_of_snapshot", "checkpoint"]
    await caught_up(server, replica)
    assert replica.kinds()[4:] == ["opened", "checkpoint"]


async def test_a_refusal_comes_before_anything_else_with_traffic_too(server: WatchServer) -> None:
    replica = Replica(server.eras, Filter(traffic=True))
    replica.position = Clock("another", 0)
    with pytest.raises(EpochChanged):
        await server.watch(replica)
    assert not replica.events


async def test_an_empty_snapshot_says_so(server: WatchServer) -> None:
    replica = Replica(server.eras, Filter("nobody"))
    await caught_up(server, replica)
    assert replica.kinds() == ["end_of_snapshot", "checkpoint"]


async def test_changes_of_the_filter_follow(server: WatchServer) -> None:
    replica = Replica(server.eras, Filter("team-a"))
    stream = server.watch(replica)
    await server.settle()
    await write(server, OTHER)
    revision = await write(server, KEY)
    await write(server, OTHER)
    await server.settle()
    assert replica.revisions() == [revision]
    await server.beats()
    await server.settle()
    assert replica.position == Clock(server.store.epoch, server.store.revision)
    await stopped(stream)


async def test_changes_made_together_arrive_together(server: WatchServer) -> None:
    await write(server, KEY)
    await server.committer.create(Create(SIBLING, "https://new.internal", {}, active=False), INTENT)
    replica = Replica(server.eras)
    stream = server.watch(replica)
    await server.settle()
    await server.committer.activate(Activate(SIBLING, exclusive=True), INTENT)
    await server.settle()
    assert [change.key.version for change in replica.events[-1].changes.changes] == ["v2", "v1"]
    await stopped(stream)


async def test_an_import_comes_in_parts_that_end_together(server: WatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHANGE_SET_BYTES", 1_000)
    monkeypatch.setattr(change_set, "ENCODED_IN_A_TURN", 3)
    monkeypatch.setattr(change_set, "PICKED_IN_A_TURN", 4)
    replica = Replica(server.eras, Filter("team-a"))
    stream = server.watch(replica)
    await server.settle()
    await server.import_([KEY._replace(version=f"v{number}") for number in range(20)], "https://many.internal")
    await server.settle()
    sets = [event.changes for event in replica.events if event.HasField("changes")]
    assert len(sets) > 2
    assert [part.partial for part in sets] == [True] * (len(sets) - 1) + [False]
    assert [part.HasField("as_of") for part in sets] == [False] * (len(sets) - 1) + [True]
    assert len(replica.table) == 20
    await stopped(stream)


@pytest.mark.parametrize("recent", [1, 4, 1_000])
async def test_what_was_missed_comes_first_from_memory_or_from_the_history(
    recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE", 3)
    monkeypatch.setattr(streams, "ATTACHED_AT_ONCE", 2)
    server = WatchServer(recent=recent)
    await server.start()
    replica = Replica(server.eras, Filter("team-a"))
    await write(server, KEY)
    await caught_up(server, replica)
    expected = []
    for _ in range(5):
        expected.append(await write(server, KEY))
        await write(server, OTHER)
    await server.import_([KEY._replace(version=f"v{number}") for number in range(7)], "https://many.internal")
    expected += range(server.store.revision - 6, server.store.revision + 1)
    await server.settle()

    stream = server.watch(replica)
    await server.settle()
    expected.append(await write(server, KEY))
    await server.settle()
    assert replica.revisions() == expected
    assert replica.kinds().count("snapshot") == 1
    await stopped(stream)
    await server.stop()


async def test_a_server_that_started_later_reads_what_streams_missed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = WatchServer()
    await write(server, KEY, 8)
    await server.start()
    replicas = [Replica(server.eras, Filter("team-a")) for _ in range(20)]
    for replica in replicas:
        replica.position = Clock(server.store.epoch, 2)
        replica.table = server.eras.table(replica.position, replica.filter)
    reads: list[ChangeQuery] = []
    list_changes = server.store.list_changes

    async def counted(query: ChangeQuery) -> list[Change]:
        reads.append(query)
        return await list_changes(query)

    monkeypatch.setattr(server.store, "list_changes", counted)
    open_streams = [server.watch(replica) for replica in replicas]
    await server.settle()
    assert [replica.revisions() for replica in replicas] == [[3, 4, 5, 6, 7, 8]] * 20
    # The feed's own reads have no upper bound.
    assert len([query for query in reads if query.before_revision]) == 1
    assert server.hub.recent.complete_from == 2
    for stream in open_streams:
        await stopped(stream)
    await server.stop()


async def test_a_token_of_another_epoch_is_refused(server: WatchServer) -> None:
    replica = Replica(server.eras)
    replica.position = Clock("another", 0)
    with pytest.raises(EpochChanged):
        await server.watch(replica)


async def test_a_token_ahead_of_the_store_is_to_be_tried_again(server: WatchServer) -> None:
    replica = Replica(server.eras)
    replica.position = Clock(server.store.epoch, 1)
    with pytest.raises(RevisionNotReached):
        await server.watch(replica)


@pytest.mark.parametrize("retention", [{"changes": 5}, {"hours": 0.0001}])
async def test_what_is_older_than_the_kept_history_cannot_be_resumed(retention: dict[str, float]) -> None:
    server = WatchServer(recent=1, **retention)
    await write(server, KEY, 10)
    if "hours" in retention:
        server.history._now = lambda: datetime.now(UTC) + timedelta(seconds=1)
    await server.start()
    replica = Replica(server.eras)
    replica.position = Clock(server.store.epoch, 3)
    with pytest.raises(RevisionCompacted):
        await server.watch(replica)
    await server.stop()


async def test_a_new_epoch_resets_the_stream(server: WatchServer) -> None:
    await write(server, KEY, 3)
    replica = Replica(server.eras)
    stream = server.watch(replica)
    await server.settle()
    server.eras.changes(server.store.epoch)
    server.store.epoch, server.store.revision, server.store.changes, server.store.routes = "restored", 0, [], {}
    server.feed.on_clock(await server.store.clock())
    await server.settle()
    revision = await write(server, OTHER)
    await server.settle()
    assert replica.kinds()[3:] == ["reset", "end_of_snapshot", "checkpoint", "changes"]
    assert replica.events[3].reset.reason == Reset.REASON_EPOCH_CHANGED
    assert replica.position == Clock("restored", revision)
    await stopped(stream)


async def test_a_client_that_does_not_read_is_ended_and_resumes(
    server: WatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "MOST_EVENTS", 5)
    await write(server, KEY)
    replica = Replica(server.eras)
    stream = server.watch(replica)
    await server.settle()
    replica.gate.close()
    for _ in range(8):
        await write(server, KEY)
        await server.settle()
    # Its write still waits for the client.
    with pytest.raises(Overloaded):
        await stream
    assert server.hub.watchers == 0
    monkeypatch.undo()
    replica.gate.open()
    await caught_up(server, replica)
    assert replica.position == Clock(server.store.epoch, server.store.revision)
    assert replica.revisions() == list(range(2, server.store.revision + 1))


async def test_it_says_when_changes_do_not_arrive(server: WatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "START_SECONDS", 0.01)
    server.hub.use(None)
    with pytest.raises(StoreUnavailable):
        await server.watch(Replica(server.eras))


async def test_a_snapshot_of_an_epoch_that_the_feed_has_not_found_waits_for_it(
    server: WatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "POLL_SECONDS", 0)
    reader = server.watch(Replica(server.eras))
    await server.settle()
    await stopped(reader)
    server.now.advance(snapshots.KEPT_SECONDS)
    server.eras.changes(server.store.epoch)
    server.store.epoch, server.store.revision, server.store.changes, server.store.routes = "restored", 0, [], {}
    replica = Replica(server.eras)
    stream = server.watch(replica)
    await server.settle()
    server.feed.on_clock(await server.store.clock())
    await server.settle()
    assert replica.kinds() == ["end_of_snapshot", "checkpoint"]
    await stopped(stream)


async def test_an_idle_stream_has_no_work_to_do(server: WatchServer) -> None:
    replica = Replica(server.eras)
    stream = server.watch(replica)
    await server.settle()
    assert not stream.done()
    assert await stopped(stream) is None
    assert server.hub.watchers == 0
