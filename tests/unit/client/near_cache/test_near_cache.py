from pathlib import Path

import grpc
import pytest

from pointsman import CachedResolution, Client, PermissionDenied, Resolution
from tests.support.fake_route_service import Failure, FakeServer
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
READY_SECONDS = 20.0


def test_it_begins_and_ends_with_its_block_and_with_its_client() -> None:
    with Client("127.0.0.1:1") as client:
        with client.cached(tenants=["team-a"], name="one") as cache:
            assert client._session.near_caches == (cache,)
            assert cache.name == "one"
        assert client._session.near_caches == ()
        other = client.cached()
        other.start()
    assert other._closed


def test_each_tenant_has_a_watch_of_its_own(server: FakeServer, client: Client) -> None:
    for tenant in ("team-a", "team-b", "team-c"):
        server.add(f"{tenant}/payments/prod/v1", f"https://{tenant}.internal")
    with client.cached(tenants=["team-a", "team-b"]) as cache:
        assert cache.wait_ready(READY_SECONDS)
        assert {call.request.tenant for call in server.called("Watch")} == {"team-a", "team-b"}
        assert set(cache.keys()) == {"team-a/payments/prod/v1", "team-b/payments/prod/v1"}
        assert isinstance(cache.resolve("team-b/payments/prod/v1"), CachedResolution)
        assert isinstance(cache.resolve("team-c/payments/prod/v1"), Resolution)


def test_what_forbids_it_to_watch_is_told_and_reads_go_to_the_server(server: FakeServer, client: Client) -> None:
    server.add(KEY, "https://one.internal")
    server.fail("Watch", Failure(grpc.StatusCode.PERMISSION_DENIED, "no routes.watch", "FORBIDDEN"))
    with client.cached() as cache:
        assert eventually(lambda: cache.last_error)
        assert isinstance(cache.last_error, PermissionDenied)
        assert not cache.healthy
        assert isinstance(cache.resolve(KEY), Resolution)


def test_two_near_caches_with_one_file(server: FakeServer, client: Client, tmp_path: Path) -> None:
    server.add(KEY, "https://one.internal")
    path = tmp_path / "routes"
    with client.cached(path=path) as first:
        assert first.wait_ready(READY_SECONDS)
        with client.cached(path=path) as second:
            assert second.wait_ready(READY_SECONDS)
            assert (first.disk_problem, bool(second.disk_problem)) == ("", True)
    with Client("127.0.0.1:1", timeout=0.5) as nowhere, nowhere.cached(path=path) as third:
        assert third.resolve(KEY).url == "https://one.internal"
        assert not third.live


@pytest.mark.parametrize("damage", [b"", b"damaged"])
def test_a_file_that_is_damaged_is_told(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "routes"
    path.write_bytes(damage)
    with Client("127.0.0.1:1", timeout=0.5) as nowhere, nowhere.cached(path=path) as cache:
        assert cache.disk_problem.startswith("cannot be read")
        assert (len(cache), cache.statistics().disk_failures) == (0, 1)
