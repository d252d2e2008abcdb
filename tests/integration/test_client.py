"""The Python client between two real servers: one is behind, or stopped."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pointsman import AsyncClient, Client, Consistency, PointsmanError
from pointsman.connection.channels import KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS
from pointsman_server.events.feed import Feed
from tests.support.pause import pause, resume
from tests.support.processes import run, serve
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
ADDED = "team-a/payments/prod/v2"
OLD, NEW = "https://old.internal", "https://new.internal"
ROUNDS = 12
FOUND_OUT_SECONDS = KEEPALIVE_SECONDS + KEEPALIVE_TIMEOUT_SECONDS + 4  # and a call that had begun


@pytest.fixture
def pair(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A target of two servers; the caches of the second have the first URL for a long time, and no feed tells."""
    chosen = settings(database_url=database_url, redis_url=redis_url, cache_local_ttl_seconds=300)
    with ExitStack() as stack:
        fresh = stack.enter_context(serving(chosen))
        monkeypatch.setattr(Feed, "run", _no_feed)
        stale = stack.enter_context(serving(chosen))
        with Client(fresh.address) as writer, Client(stale.address) as reader:
            writer.create(KEY, OLD)
            assert reader.resolve(KEY).url == OLD
            assert reader.batch_resolve([ADDED])[0].error
            writer.update(KEY, url=NEW)
            writer.create(ADDED, NEW)
        yield together(fresh, stale)


async def _no_feed(feed: Feed) -> None:
    """Instead of ``Feed.run``."""


def together(*servers: RunningServer) -> str:
    return "ipv4:" + ",".join(server.address for server in servers)


def both_answer(client: Client) -> bool:
    """Ask without a floor, the remedy off: the key goes back and forth between the new URL and the old one."""
    return {client.resolve(KEY, min_revision=0).url for _ in range(ROUNDS)} == {OLD, NEW}


def test_a_client_that_alternates_never_sees_the_key_go_back(pair: str) -> None:
    with Client(pair) as client:
        assert eventually(lambda: both_answer(client))
        assert {client.resolve(KEY).url for _ in range(ROUNDS)} == {NEW}


def test_nor_do_the_keys_of_a_batch_and_what_was_added_stays(pair: str) -> None:
    with Client(pair) as client:
        assert eventually(lambda: both_answer(client))
        client.resolve(ADDED, consistency=Consistency.FULLY_CONSISTENT)
        found = [[result.unwrap().url for result in client.batch_resolve([KEY, ADDED])] for _ in range(ROUNDS)]
    assert found == [[NEW, NEW]] * ROUNDS


async def test_nor_with_the_asyncio_client(pair: str) -> None:
    with Client(pair) as client:
        assert eventually(lambda: both_answer(client))
    async with AsyncClient(pair) as client:
        found = [(await client.resolve(KEY)).url for _ in range(ROUNDS)]
    assert found == sorted(found, reverse=True)


def test_the_command_takes_a_list_of_addresses(pair: str) -> None:
    done = run("pointsman", "--server", pair, "resolve", KEY, "--consistency", "fully_consistent")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{NEW}\n", "")


def test_a_server_that_is_stopped_is_found_out_and_the_other_one_serves(database_url: str, redis_url: str) -> None:
    environ = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "POINTSMAN_ROLES": "api"}
    with (
        serve(**environ) as (stopped, one, _),
        serve(**environ) as (_, other, _),
        Client(f"ipv4:{one},{other}", timeout=2) as client,
    ):
        client.create(KEY, NEW)
        assert {client.resolve(KEY).url for _ in range(ROUNDS)} == {NEW}
        try:
            pause(stopped.process)
            # Every other call goes to the stopped server, and is not answered, until the client has found out.
            assert eventually(lambda: all(answers(client) for _ in range(ROUNDS)), FOUND_OUT_SECONDS)
        finally:
            resume(stopped.process)
        assert {client.resolve(KEY).url for _ in range(ROUNDS)} == {NEW}


def answers(client: Client) -> bool:
    try:
        return client.resolve(KEY).url == NEW
    except PointsmanError:
        return False
