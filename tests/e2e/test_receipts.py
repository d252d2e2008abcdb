"""Receipts and usage of real near-caches, across the workers of a server, and of a server that is killed."""

import os
import signal
from contextlib import ExitStack

import pytest

from pointsman import Client, NearCache
from tests.support.processes import free_port, get_metric, serve, server_process
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
KEY = "team-a/payments/prod/v1"
TRANSPORTS = ["grpcio", "envoy"]
NEAR_CACHES = 8


@pytest.fixture
def environ(database_url, redis_url) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "POINTSMAN_ROLES": "api",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
        "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "30",
    }


def near_caches(stack: ExitStack, address: str, count: int = NEAR_CACHES) -> list[NearCache]:
    """Open near-caches, each with connections of its own."""
    found = []
    for number in range(count):
        client = stack.enter_context(Client(address))
        found.append(stack.enter_context(client.cached(tenants=["team-a"], name=f"checkout-{number}")))
    for near_cache in found:
        near_cache.wait_ready(60)
    return found


def reads(client: Client) -> int:
    """Return how often everybody has read KEY."""
    return sum(reader.read_count for reader in client.get_usage(KEY).readers)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_workers_know_the_watchers_and_the_reads_of_each_other(environ, transport):
    port, http_port = free_port(), free_port()
    address, http = f"127.0.0.1:{port}", f"http://127.0.0.1:{http_port}"
    fixed = {"POINTSMAN_LISTEN": address, "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{http_port}"}
    with server_process("serve", "--workers", "2", "--transport", transport, **(environ | fixed)) as process:
        process.wait_for_log("serving", times=2)
        with ExitStack() as stack:
            watching = near_caches(stack, address)
            askers = [stack.enter_context(Client(address)) for _ in range(4)]
            revision = askers[0].create(KEY, URL).revision
            assert eventually(lambda: get_metric(http, "pointsman_watchers") == NEAR_CACHES)

            for asker in askers:

                def complete(asker: Client = asker) -> bool:
                    found = asker.get_propagation(revision, tenant="team-a")
                    assert found.all_servers
                    return (found.watcher_count, found.applied_count) == (NEAR_CACHES, NEAR_CACHES)

                assert eventually(complete)
            # What is said to have arrived has been applied.
            assert [near_cache.resolve(KEY).route.url for near_cache in watching] == [URL] * NEAR_CACHES

            for asker in askers:
                for _ in range(5):
                    asker.resolve(KEY)
            assert eventually(lambda: reads(askers[0]) == 5 * len(askers))
        # Near-caches report about how many reads they had when they are closed.
        with Client(address) as asker:
            assert eventually(lambda: reads(asker) > 5 * len(askers))
        assert process.stop() == 0


def test_the_watchers_of_a_server_that_was_killed_vanish_or_are_those_of_another(environ):
    with serve(**environ) as (doomed, first, _), serve(**environ) as (_, second, _), ExitStack() as stack:
        alone = near_caches(stack, first, 1)
        both = near_caches(stack, f"ipv4:{first},{second}", 2)
        asker = stack.enter_context(Client(second))
        revision = asker.create(KEY, URL).revision
        assert eventually(lambda: asker.get_propagation(revision).applied_count == 3)

        os.killpg(doomed.process.pid, signal.SIGKILL)
        later = asker.update(KEY, url=f"{URL}/later").revision

        def only_the_others() -> bool:
            found = asker.get_propagation(later)
            return (found.watcher_count, found.applied_count) == (2, 2)

        assert eventually(only_the_others, 60), asker.get_propagation(later)
        assert [near_cache.resolve(KEY).route.url for near_cache in both] == [f"{URL}/later"] * 2
        assert alone[0].revision < later
