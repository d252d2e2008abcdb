"""The client and the commands that read traffic, change sets and moments, on a real server."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from pointsman import (
    Activate,
    AmbiguousVersion,
    AsyncClient,
    ChangedSince,
    ChangeSetResult,
    Client,
    Create,
    Deactivate,
    Delete,
    InvalidArgument,
    NoActiveVersion,
    RevisionInFuture,
    RouteExists,
    RouteInTraffic,
    RouteInUse,
    Rule,
    SetTraffic,
    TargetNotFound,
    Traffic,
    TrafficNotFound,
)
from pointsman.cli.app import app
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import run, serve

if TYPE_CHECKING:
    from tests.support.engines import BorrowedEngines, Engines

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def address(template_database: str, engines: "Engines | BorrowedEngines") -> Iterator[str]:
    """Where a server listens that all tests of this module share: each has a tenant of its own."""
    with fresh_database(template_database) as database_url:
        settings = {
            "DATABASE_URL": database_url,
            "REDIS_URL": fresh_redis(engines.urls["REDIS_URL"]),
            "POINTSMAN_ROLES": "api",
            "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
            "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "30",
        }
        with serve(**settings) as (_, address, _):
            yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=30) as client:
        yield client


@pytest.fixture
def command(address: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``pointsman`` in this process."""
    monkeypatch.setenv("POINTSMAN_SERVER", address)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@dataclass(frozen=True)
class Release:
    """Three versions with traffic, made as one change set of ``first`` to ``last``."""

    family: str
    made: ChangeSetResult

    @property
    def tenant(self) -> str:
        return self.family.partition("/")[0]

    @property
    def keys(self) -> list[str]:
        return [f"{self.family}/{version}" for version in ("v1", "v2", "v3")]

    @property
    def first(self) -> int:
        return self.made.change_set_id

    @property
    def last(self) -> int:
        return self.made.revision


@pytest.fixture
def release(client: Client, request: pytest.FixtureRequest) -> Release:
    family = f"{request.node.name[5:40].rstrip('_')}/payments/prod"
    v1, v2, v3 = (f"{family}/{version}" for version in ("v1", "v2", "v3"))
    made = client.commit(
        [
            Create(v1, "https://v1.internal"),
            Create(v2, "https://v2.internal"),
            Create(v3, "https://v3.internal", active=False),
            SetTraffic(family, {"v1": 9000, "v2": 1000}, fallbacks=["v3"]),
        ],
        reason="release 2",
    )
    return Release(family, made)


def test_a_service_selects_and_a_release_moves_it(client: Client, release: Release) -> None:
    family, (v1, v2, v3) = release.family, release.keys
    assert (release.made.size, release.last - release.first) == (4, 3)
    assert [each.change_count for each in release.made.mutations] == [1, 1, 1, 1]
    before = {each.sticky_key: each.unwrap() for each in client.batch_select((family, f"u{n}") for n in range(1200))}
    assert 0.85 < sum(each.version == "v1" for each in before.values()) / 1200 < 0.95
    assert before["u7"].choice == client.select(family, "u7").choice
    assert before["u7"].traffic_revision == release.last

    client.set_traffic(family, {"v1": 8000, "v2": 2000}, fallbacks=["v3"])
    after = {each.sticky_key: each.unwrap() for each in client.batch_select((family, key) for key in before)}
    moved = {(before[key].version, after[key].version) for key in before if before[key].version != after[key].version}
    assert moved == {("v1", "v2")}

    client.commit([Deactivate(v1), Deactivate(v2), Activate(v3)])
    fallback = client.select(family, "u7")
    assert (fallback.version, fallback.choice.rule) == ("v3", Rule.FALLBACK)
    assert set(fallback.choice.inactive_versions) == {"v1", "v2"}
    assert client.select(family, "u7", as_of=release.last).version == before["u7"].version
    client.deactivate(v3)
    with pytest.raises(NoActiveVersion):
        client.select(family)
    [absent] = client.batch_select([("nobody/s/prod", "")])
    assert isinstance(absent.error, NoActiveVersion)


def test_what_is_refused_is_named(client: Client, release: Release) -> None:
    family, (v1, v2, _) = release.family, release.keys
    with pytest.raises(RouteExists) as exists:
        client.commit([Deactivate(v1), Create(v2, "https://x.internal"), Delete(v1)])
    assert [refusal.index for refusal in exists.value.refusals] == [1, 2]
    assert [refusal.reason for refusal in exists.value.refusals] == ["ROUTE_EXISTS", "ROUTE_IN_TRAFFIC"]
    assert client.get(v1).active
    with pytest.raises(InvalidArgument) as malformed:
        client.commit([Deactivate(v1), Create(v2, "not a url")])
    assert [refusal.index for refusal in malformed.value.refusals] == [1]
    with pytest.raises(RouteInTraffic) as named:
        client.delete(v1)
    assert named.value.traffic_revision == release.last
    with pytest.raises(TargetNotFound) as absent:
        client.set_traffic(family, {"v9": 10_000})
    assert absent.value.versions == ("v9",)
    with pytest.raises(InvalidArgument):
        client.set_traffic(family, {"v1": 1})
    client.delete_traffic(family)
    with pytest.raises(TrafficNotFound):
        client.get_traffic(family)
    with pytest.raises(AmbiguousVersion) as ambiguous:
        client.select(family)
    assert ambiguous.value.versions == ("v1", "v2")


def test_a_route_that_is_read_is_not_taken_away(client: Client, release: Release) -> None:
    v1, _, _ = release.keys
    client.resolve(v1, min_revision=0)
    deadline = time.monotonic() + 30
    while True:
        try:
            client.deactivate(v1, if_unused_for=timedelta(minutes=5))
        except RouteInUse as error:
            [reader] = error.readers
            assert reader.subject == "anonymous"
            assert reader.time > datetime.now(UTC) - timedelta(minutes=5)
            return
        assert time.monotonic() < deadline
        client.activate(v1)
        client.resolve(v1)


def test_a_change_set_is_undone_unless_it_was_changed_since(client: Client, release: Release) -> None:
    v1, v2, _ = release.keys
    client.update(v2, url="https://new.internal", reason="by hand")
    with pytest.raises(ChangedSince) as caught:
        client.revert(release.first)
    assert caught.value.count == 1
    [violation] = caught.value.violations
    assert violation.field == v2
    assert "by hand" in violation.description
    planned = client.revert(release.first, force=True, dry_run=True)
    assert client.get(v1).active
    done = client.revert(release.first, force=True, reason="roll back")
    assert (done.size, planned.size) == (4, 4)
    assert list(client.list(tenant=release.tenant)) == []
    assert client.revert((done.change_set_id, done.revision)).size == 4
    assert client.get_traffic(release.family).weights == {"v1": 9000, "v2": 1000}
    assert client.get(v2).url == "https://new.internal"


def test_moments_are_told_from_the_history(client: Client, release: Release) -> None:
    family, tenant, (v1, _, _) = release.family, release.tenant, release.keys
    cut_over = client.commit([Deactivate(v1), SetTraffic(family, {"v2": 10_000})])
    moment = cut_over.changes[0].occur_time
    earlier = moment - timedelta(microseconds=1)
    assert client.get(v1, as_of=release.last) == client.get(v1, as_of=earlier)
    assert client.get(v1, as_of=earlier).active
    assert not client.get(v1, as_of=moment).active
    assert client.get_traffic(family, as_of=earlier).weights == {"v1": 9000, "v2": 1000}
    assert [route.active for route in client.list(tenant=tenant, as_of=earlier)] == [True, True, False]
    assert [each.change_set_id for each in client.changes(after_time=earlier)] == [cut_over.change_set_id] * 2
    until = client.changes(tenant=tenant, before_time=earlier)
    assert [each.change_set_id for each in until] == [release.first] * 4
    traffic, route = client.diff(earlier)
    assert isinstance(traffic.after, Traffic)
    assert (traffic.after.weights, str(route.key)) == ({"v2": 10_000}, v1)
    assert client.diff(release.last, moment) == client.diff(earlier, cut_over.revision) == (traffic, route)
    assert client.diff(moment) == ()
    with pytest.raises(RevisionInFuture) as future:
        client.diff(cut_over.revision + 1)
    assert future.value.last_revision == cut_over.revision


async def test_asyncio_does_the_same(address: str, release: Release) -> None:
    async with AsyncClient(address, timeout=30) as client:
        assert (await client.select(release.family, "u7")).traffic_revision == release.last
        found = [each.weights async for each in client.list_traffic(tenant=release.tenant)]
        assert found == [{"v1": 9000, "v2": 1000}]
        assert len(await client.diff(0, tenant=release.tenant)) == 4
        assert (await client.revert(release.first)).size == 4


def test_the_commands_read_it(client: Client, command: Command, address: str, release: Release) -> None:
    family, (v1, v2, _) = release.family, release.keys
    cut_over = client.commit([Deactivate(v1), SetTraffic(family, {"v2": 10_000})], reason="cut over")
    before = str(release.last)

    why = f"v2, by the weights of the traffic (revision {cut_over.revision})\n"
    done = run("pointsman", "--server", address, "select", family, "--key", "u7")
    assert (done.stdout, done.stderr) == ("https://v2.internal\n", why)
    assert f"(revision {before})" in command("select", family, "--key", "u7", "--as-of", before).stderr
    assert "traffic   v2=100%\n" in command("traffic", "get", family).stdout
    assert "v1=90% v2=10%; fallback v3" in command("traffic", "get", family, "--as-of", before).stdout
    assert family in command("traffic", "list").stdout
    assert "state     active" in command("get", v1, "--as-of", before).stdout
    assert command("diff", "--from", before).stdout.splitlines() == [
        f"~ {family}  traffic: v1=90% v2=10%; fallback v3 → v2=100%",
        f"~ {v1}  active → inactive",
    ]
    lines = command("history", "--sets", "--tenant", release.tenant).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["SET", str(cut_over.change_set_id), str(release.first)]
    assert "1 of 4" in command("history", "--sets", v2).stdout
    explained = command("explain", family).stdout
    assert f"why       {why}" in explained
    assert "(cut over)" in explained
    document = json.loads(command("explain", v1, "--json").stdout)
    assert document["error"]["reason"] == "ROUTE_INACTIVE"
    assert [layer["source"] for layer in document["layers"]] == ["LOCAL", "REDIS", "POSTGRES"]
