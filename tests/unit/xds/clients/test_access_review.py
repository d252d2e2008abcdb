"""xds.clients.access_review: which streams end, and which are sent something else."""

import asyncio

import pytest

from pointsman_server.domain.access_errors import Unauthenticated
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.xds.clients import access_review
from pointsman_server.xds.clients.access_review import AccessReview
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.stream import Stream
from tests.support.changes import make_change
from tests.support.waiting import becomes
from tests.support.xds_connections import Connection, Connections, FakeCaller

EXPIRED = Unauthenticated("bearer token", "expired", "expired")


class CountedShare(FairShare):
    turns = 0

    async def take(self) -> None:
        self.turns += 1
        await super().take()


class Scene:
    def __init__(self) -> None:
        self.world = Connections(make_change(1))
        self.changed: list[Stream] = []
        self.share = CountedShare()
        self.reviews = AccessReview(self.world.clients, self.share, self.changed.append)
        self.review = self.reviews.review

    async def connect(self, outcome: bool | Exception, *, leaves: bool = False) -> Connection:
        connection = self.world.connect()
        await connection.ask(ResourceType.RDS, "v1~prod~pay~acme")
        await connection.answer()
        caller = connection.stream.client.caller
        assert isinstance(caller, FakeCaller)

        async def verify() -> bool:
            if leaves:
                connection.close()
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        caller.verify = verify  # type: ignore[method-assign]
        return connection


async def test_a_stream_whose_credential_has_ended_is_ended_and_the_others_are_not() -> None:
    scene = Scene()
    broken = RuntimeError("a bug")
    streams = [(await scene.connect(outcome)).stream for outcome in (EXPIRED, broken, False)]
    await scene.review()
    assert [stream._error for stream in streams] == [EXPIRED, broken, None]
    assert scene.changed == []


async def test_one_that_may_read_something_else_is_sent_that() -> None:
    scene = Scene()
    same, other = await scene.connect(False), await scene.connect(True)
    caller = other.stream.client.caller
    assert isinstance(caller, FakeCaller)
    caller.tenants = []
    await scene.review()
    assert scene.changed == [other.stream]
    assert same.stream.settled
    assert not other.stream.settled


async def test_it_takes_turns_with_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_review, "REVIEWED_IN_A_TURN", 3)
    scene = Scene()
    for _ in range(7):
        await scene.connect(False)
    await scene.review()
    assert scene.share.turns == 3


async def test_it_reviews_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_review, "REVIEW_SECONDS", 0.0)
    scene = Scene()
    await scene.connect(True)
    running = asyncio.create_task(scene.reviews.run())

    async def reviewed() -> bool:
        return len(scene.changed) > 1

    assert await becomes(reviewed)
    running.cancel()


async def test_one_that_left_meanwhile_is_left_alone() -> None:
    scene = Scene()
    await scene.connect(True, leaves=True)
    await scene.review()
    assert scene.changed == []
