"""The Python client between real servers, one of which is behind: no key goes back."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pointsman import AsyncClient, Client, Consistency
from pointsman_server.app.application import App
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
ADDED = "team-a/payments/prod/v2"
OLD, NEW = "https://old.internal", "https://new.internal"
ROUNDS = 12
# A list of addresses, which is the target, is no host: HTTP/2 wants one.
OPTIONS = [("grpc.default_authority", "pointsman.test")]


@pytest.fixture
def pair(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A target of two servers; the caches of the second have the first URL for a long time, and no feed tells."""
    chosen = settings(database_url=database_url, redis_url=redis_url, cache_local_ttl_seconds=300)
    with ExitStack() as stack:
        fresh = stack.enter_context(serving(chosen))
        monkeypatch.setattr(App, "_start_feed", _no_feed)
        stale = stack.enter_context(serving(chosen))
        with Client(fresh.address) as writer, Client(stale.address) as reader:
            writer.create(KEY, OLD)
            assert reader.resolve(KEY).url == OLD
            assert reader.batch_resolve([ADDED])[0].error
            writer.update(KEY, url=NEW)
            writer.create(ADDED, NEW)
        yield together(fresh, stale)


def _no_feed(app: App) -> None:
    """Instead of ``App._start_feed``."""


def together(*servers: RunningServer) -> str:
    return "ipv4:" + ",".join(server.address for server in servers)


def both_answer(client: Client) -> bool:
    """Ask without a floor, the remedy off: the key goes back and forth between the new URL and the old one."""
    return {client.resolve(KEY, min_revision=0).url for _ in range(ROUNDS)} == {OLD, NEW}


def test_a_client_that_alternates_never_sees_the_key_go_back(pair: str) -> None:
    with Client(pair, options=OPTIONS) as client:
        assert eventually(lambda: both_answer(client))
        assert {client.resolve(KEY).url for _ in range(ROUNDS)} == {NEW}


def test_nor_do_the_keys_of_a_batch_and_what_was_added_stays(pair: str) -> None:
    with Client(pair, options=OPTIONS) as client:
        assert eventually(lambda: both_answer(client))
        client.resolve(ADDED, consistency=Consistency.FULLY_CONSISTENT)
        found = [[result.unwrap().url for result in client.batch_resolve([KEY, ADDED])] for _ in range(ROUNDS)]
    assert found == [[NEW, NEW]] * ROUNDS


async def test_nor_with_the_asyncio_client(pair: str) -> None:
    with Client(pair, options=OPTIONS) as client:
        assert eventually(lambda: both_answer(client))
    async with AsyncClient(pair, options=OPTIONS) as client:
        found = [(await client.resolve(KEY)).url for _ in range(ROUNDS)]
    assert found == sorted(found, reverse=True)
