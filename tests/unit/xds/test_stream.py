"""Tasks, back-pressure and limits of one stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pointsman_server.domain.errors import InvalidField, StoreUnavailable
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import Window
from pointsman_server.runtime.rate_limiter import Rate
from pointsman_server.xds import stream as streams
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.session import WORK_OF_A_NAME, Push, Session
from pointsman_server.xds.stream import (
    LONGEST_NAME,
    MOST_NAMES,
    WORK_OF_A_REQUEST,
    Stream,
    check_names,
    response,
)
from tests.support.waiting import becomes
from tests.support.xds_fake_stream import Notes, Transport, WatchedWorld
from tests.support.xds_world import CDS, EDS, LDS, RDS, request


class Running:
    """A stream that is served."""

    def __init__(
        self, hold_seconds: float = 60.0, linger_seconds: float = 60.0, catch_up_seconds: float = 60.0
    ) -> None:
        self.world = WatchedWorld()
        self.transport = Transport()
        self.notes = Notes()
        self.stream = Stream(
            None,  # type: ignore[arg-type]
            Session(self.world),
            self.world,
            self.transport.write,
            observers=(self.notes,),
            hold_seconds=hold_seconds,
            linger_seconds=linger_seconds,
            catch_up_seconds=catch_up_seconds,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self, first: Any = None) -> None:
        first = request(RDS, "a") if first is None else first
        self.task = asyncio.create_task(self.stream.run(first, aiter(self.transport)))

    async def change(self, **values: int) -> None:
        self.world.set("a", **values)
        self.stream.wake(Window())

    async def change_cluster_and_route(self) -> None:
        """Start, let the client have both, and change them together."""
        self.start()
        await self.settle()
        self.transport.ask(CDS, "a")
        assert await happens(lambda: self.stream.session.count(CDS) == 1)
        await self.settle()
        await self.change(cluster=1, route=1)

    async def settle(self) -> None:
        """Acknowledge what is sent, until nothing more is."""
        assert await happens(lambda: self.stream.session.count(RDS) and self.transport.requests.empty())
        while not self.stream.settled:
            sent = await self.transport.read()
            self.transport.ask(sent.type_url, "a", nonce=sent.nonce)
            assert await happens(lambda: self.transport.requests.empty())

    async def over(self) -> None:
        assert self.task is not None
        async with asyncio.timeout(10):
            await self.task


async def happens(holds: Callable[[], object]) -> bool:
    async def held() -> object:
        return holds()

    return await becomes(held)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    running = Running()
    yield running
    if running.task:
        running.task.cancel()
        await asyncio.wait((running.task,))


async def test_requests_are_answered_and_their_answers_told(running: Running) -> None:
    running.start()
    first = await running.transport.read()
    running.transport.ask(RDS, "a", nonce=first.nonce)
    running.transport.ask(EDS, "a", "b")
    second = await running.transport.read()
    running.transport.ask(EDS, "a", "b", nonce=second.nonce, error="no such address")
    running.transport.end()
    await running.over()
    assert {*running.notes.notes} == {
        ("opened",),
        ("pushed", RDS),
        ("acknowledged", RDS),
        ("pushed", EDS),
        ("refused", EDS, "no such address"),
        ("closed",),
    }
    assert all(0 <= seconds < 60 for seconds in running.notes.seconds)


async def test_an_answer_may_come_before_the_transport_says_that_the_response_is_written(running: Running) -> None:
    running.transport.room.clear()
    running.start()
    sent = await running.transport.read()
    running.transport.ask(RDS, "a", nonce=sent.nonce)
    assert await happens(lambda: ("acknowledged", RDS) in running.notes.notes)
    assert ("pushed", RDS) not in running.notes.notes


async def test_an_answer_after_which_nothing_is_due_wakes_nobody(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would cost a switch to the other task, and as much as there is to look for something to send."""
    running.start()
    sent = await running.transport.read()
    taken: list[bool] = []
    monkeypatch.setattr(running.stream.session, "take", lambda *, hold: taken.append(hold) or [])
    running.transport.ask(RDS, "a", nonce=sent.nonce)
    assert await happens(lambda: running.stream.settled)
    await asyncio.sleep(0)
    assert not taken
    running.transport.ask(RDS, "a", "b", nonce=sent.nonce)
    assert await happens(lambda: taken)


async def test_what_it_wants_is_watched_and_in_the_end_nothing(running: Running) -> None:
    running.start()
    running.transport.ask(CDS, "a~~1", "b")
    assert await happens(lambda: {*running.world.watched} == {"a", "b"})
    running.transport.ask(CDS, "c")
    assert await happens(lambda: {*running.world.watched} == {"a", "c"})
    assert not running.world.watches_all
    running.transport.ask(LDS)
    assert await happens(lambda: running.world.watches_all)
    running.transport.end()
    await running.over()
    assert not running.world.watched
    assert running.world.left


async def test_changes_are_sent_and_counted_in_the_window_until_they_are_written(running: Running) -> None:
    running.start()
    await running.settle()
    running.transport.room.clear()
    window = Window()
    running.world.set("a", route=1)
    assert not running.stream.settled
    running.stream.wake(window)
    running.stream.wake(Window())
    await running.transport.read()
    assert window.writing == 1
    running.transport.room.set()
    assert await happens(lambda: window.writing == 0)


async def test_changes_before_a_client_reads_are_merged(running: Running) -> None:
    """A client that does not read holds one response, whatever happens."""
    running.start()
    await running.settle()
    running.transport.room.clear()
    for value in range(1, 100):
        await running.change(route=value)
        await asyncio.sleep(0)
    sent = await running.transport.read()
    running.transport.room.set()
    running.transport.ask(RDS, "a", nonce=sent.nonce)
    merged = await running.transport.read()
    assert merged.resources[0].value == b"(99, True)"
    assert running.transport.responses.empty()


async def test_what_waits_for_clusters_is_sent_in_the_end() -> None:
    running = Running(hold_seconds=0.01)
    await running.change_cluster_and_route()
    assert (await running.transport.read()).type_url == CDS
    assert (await running.transport.read()).type_url == RDS
    running.transport.end()
    await running.over()


async def test_what_waits_for_clusters_waits_whatever_else_is_sent(running: Running) -> None:
    await running.change_cluster_and_route()
    clusters = await running.transport.read()
    for kind in (EDS, LDS):
        running.transport.ask(kind, "b")
        assert (await running.transport.read()).type_url == kind
    running.transport.ask(CDS, "a", nonce=clusters.nonce)
    assert (clusters.type_url, (await running.transport.read()).type_url) == (CDS, RDS)


async def test_what_lingers_is_sent_in_the_end() -> None:
    running = Running(linger_seconds=0.0)
    running.world.set("a")
    running.start()
    running.transport.ask(CDS, "a")
    assert await happens(lambda: running.stream.session.count(CDS) == 1)
    await running.settle()
    running.world.lingers = True
    await running.change(live=False)
    routes = await running.transport.read()
    assert routes.type_url == RDS
    running.transport.ask(RDS, "a", nonce=routes.nonce)
    clusters = await running.transport.read()
    assert (clusters.type_url, clusters.resources[0].value) == (CDS, b"closed")
    running.transport.end()
    await running.over()


async def test_a_cancelled_stream_leaves_nothing(running: Running) -> None:
    """So does a drain."""
    running.start()
    await running.transport.read()
    assert running.task is not None
    tasks = len(asyncio.all_tasks())
    running.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert len(asyncio.all_tasks()) == tasks - 2
    assert running.notes.notes[-1] == ("closed",)
    assert not running.world.watched


async def test_a_client_that_goes_while_a_response_is_written_leaves_nothing(running: Running) -> None:
    running.transport.error = ConnectionResetError("gone")
    running.start()
    with pytest.raises(ConnectionResetError):
        await running.over()
    assert running.notes.notes == [("opened",), ("closed",)]
    assert not running.world.watched


async def test_a_request_beyond_the_limits_ends_the_stream(running: Running) -> None:
    running.start()
    running.transport.ask(RDS, "x" * (LONGEST_NAME + 1))
    with pytest.raises(InvalidField, match=r"resource_names\[0\]: 1025 characters long"):
        await running.over()
    assert running.notes.notes[-1] == ("closed",)


async def test_an_error_from_outside_ends_the_stream(running: Running) -> None:
    running.start()
    running.stream.fail(InvalidField([]))
    with pytest.raises(InvalidField):
        await running.over()


async def test_a_flood_of_requests_waits(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REQUESTS", Rate(0.001, burst_seconds=3_000))
    running.start()
    for number in range(10):
        running.transport.ask(EDS, f"a{number}")
    assert await happens(lambda: running.transport.requests.qsize() == 6)
    await asyncio.sleep(0)
    assert running.transport.requests.qsize() == 6


async def test_names_that_were_not_asked_for_before_count_as_requests(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "REQUESTS", Rate(0.001, burst_seconds=5_000))
    running.start()
    same = [f"a{number}" for number in range(2 * WORK_OF_A_REQUEST // WORK_OF_A_NAME)]
    for names in (same, same, [f"{name}b" for name in same], same, same):
        running.transport.ask(EDS, *names)
    # The first costs one, and three more, which the next one pays for; so the fourth is one too many.
    assert await happens(lambda: running.transport.requests.qsize() == 1)
    await asyncio.sleep(0)
    assert running.transport.requests.qsize() == 1


async def test_large_responses_count_as_requests(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REQUESTS", Rate(0.001, burst_seconds=4_000))
    running.start()
    await running.transport.read()
    # A name that is new, and a resource.
    assert running.stream.session.work == WORK_OF_A_NAME + 1
    running.stream.session.work += 2 * WORK_OF_A_REQUEST
    for name in "bcd":
        running.transport.ask(EDS, name)
    # The first one pays for two more, so the third is one too many.
    assert await happens(lambda: not running.transport.requests.qsize())
    assert await happens(lambda: running.stream.session.count(EDS) == 1)
    assert {state.name for state in running.stream.session.states() if state.kind is EDS} == {"c"}


def test_many_names_are_refused() -> None:
    names = [f"a{number}" for number in range(MOST_NAMES + 1)]
    check_names(names[1:], lambda: 0)
    check_names(names, lambda: MOST_NAMES + 1)
    with pytest.raises(InvalidField, match="1001 names of one type: a stream may ask for 1000"):
        check_names(names, lambda: MOST_NAMES)
    check_names(["x" * LONGEST_NAME], lambda: 0)


def test_what_a_wildcard_gives_may_be_asked_for_besides() -> None:
    running = Running()
    running.world.set("a", slots=3)
    assert running.stream._most_names() == MOST_NAMES + 3


def test_a_response_is_what_protobuf_reads() -> None:
    world = WatchedWorld()
    resources = [world.resource(CDS, name) for name in ("a", "b" * 200)]
    read = pb.DiscoveryResponse.FromString(response(Push(CDS, "v", "n", resources), Clock("e", 12)))
    assert (read.version_info, read.nonce, read.type_url) == ("v.12.e", "n", str(CDS))
    assert read.control_plane.identifier == "pointsman"
    assert [each.type_url for each in read.resources] == [CDS, CDS]


class TestWhatAClientHasAlready:
    """Of a server that had followed further: it never gets anything older."""

    async def test_is_waited_for(self, running: Running) -> None:
        running.start(request(RDS, "a", version="v.11.e"))
        await asyncio.sleep(0)
        running.transport.ask(CDS, "a")
        for _ in range(10):
            await asyncio.sleep(0)
        assert running.transport.responses.empty()
        running.world.clock = Clock("e", 11)
        running.world.advanced.set()
        first = await running.transport.read()
        assert (first.type_url, first.version_info.partition(".")[2]) == (str(RDS), "11.e")

    @pytest.mark.parametrize("version", ["v.10.e", "v.99.of another epoch", "v", ""])
    async def test_is_not_waited_for_where_it_is_not_later(self, running: Running, version: str) -> None:
        running.start(request(RDS, "a", version=version))
        assert (await running.transport.read()).type_url == RDS

    async def test_is_not_waited_for_without_end(self) -> None:
        running = Running(catch_up_seconds=0.001)
        running.start(request(RDS, "a", version="v.11.e"))
        assert running.task
        with pytest.raises(StoreUnavailable):
            await running.task
        assert running.transport.responses.empty()
