from pathlib import Path

import grpc
import pytest

from pointsman import CachedResolution, Client, PermissionDenied, Resolution, Unimplemented
from pointsman.near_cache.table.selections import CachedSelection
from pointsman.traffic import Selection
from tests.support.fake_route_service import Failure, FakeServer
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
FAMILY = "team-a/payments/prod"
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


def test_selects_are_answered_here_by_the_traffic_of_the_server(server: FakeServer, client: Client) -> None:
    for version in ("v1", "v2"):
        server.add(f"{FAMILY}/{version}", f"https://{version}.internal")
    server.divide(FAMILY, {"v1": 5_000, "v2": 5_000})
    with client.cached() as cache:
        assert cache.wait_ready(READY_SECONDS)
        here = [cache.select(FAMILY, f"user-{number}") for number in range(200)]
        assert all(isinstance(each, CachedSelection) for each in here)
        assert {each.version for each in here} == {"v1", "v2"}
        there = [client.select(FAMILY, f"user-{number}") for number in range(200)]
        assert [(each.choice, each.url, each.traffic_revision) for each in here] == [
            (each.choice, each.url, each.traffic_revision) for each in there
        ]
        set_at = client.set_traffic(FAMILY, {"v2": 10_000}).revision
        written = cache.select(FAMILY, "user-1")
        assert (written.version, written.traffic_revision) == ("v2", set_at)
        assert eventually(lambda: isinstance(cache.select(FAMILY, "user-1"), CachedSelection))
        assert cache.select(FAMILY, "user-1").traffic_revision == set_at


def test_a_server_of_an_earlier_release_is_asked_and_says_that_it_cannot(server: FakeServer, client: Client) -> None:
    server.add(KEY, "https://one.internal")
    server.knows_traffic = False
    with client.cached() as cache:
        assert cache.wait_ready(READY_SECONDS)
        assert isinstance(cache.resolve(KEY), CachedResolution)
        assert isinstance(cache.select(FAMILY), Selection)
        server.fail("Select", Failure(grpc.StatusCode.UNIMPLEMENTED, "no such method"))
        with pytest.raises(Unimplemented):
            cache.select(FAMILY)


def test_traffic_survives_a_restart_without_a_server(server: FakeServer, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "routes"
    for version in ("v1", "v2"):
        server.add(f"{FAMILY}/{version}", f"https://{version}.internal")
    server.divide(FAMILY, {"v1": 5_000, "v2": 5_000})
    with client.cached(path=path) as cache:
        assert cache.wait_ready(READY_SECONDS)
        before = [cache.select(FAMILY, f"user-{number}").choice for number in range(50)]
    with Client("127.0.0.1:1", timeout=0.5) as nowhere, nowhere.cached(path=path) as again:
        assert [again.select(FAMILY, f"user-{number}").choice for number in range(50)] == before
