"""The client and the commands that read traffic, change sets and moments, on a real server."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

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
    Refusal,
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
from tests.support.processes import run, serve

FAMILY = "team-a/payments/prod"
V1, V2, V3 = (f"{FAMILY}/{version}" for version in ("v1", "v2", "v3"))

Command = Callable[..., Any]


@pytest.fixture
def address(database_url: str, redis_url: str) -> Iterator[str]:
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
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


@pytest.fixture
def release(client: Client) -> ChangeSetResult:
    return client.commit(
        [
            Create(V1, "https://v1.internal"),
            Create(V2, "https://v2.internal"),
            Create(V3, "https://v3.internal", active=False),
            SetTraffic(FAMILY, {"v1": 9000, "v2": 1000}, fallbacks=["v3"]),
        ],
        reason="release 2",
    )


def test_a_service_selects_and_a_release_moves_it(client: Client, release: ChangeSetResult) -> None:
    assert (release.change_set_id, release.size, release.revision) == (1, 4, 4)
    assert [each.change_count for each in release.mutations] == [1, 1, 1, 1]
    before = {each.sticky_key: each.unwrap() for each in client.batch_select((FAMILY, f"u{n}") for n in range(1200))}
    assert 0.85 < sum(each.version == "v1" for each in before.values()) / 1200 < 0.95
    assert before["u7"].choice == client.select(FAMILY, "u7").choice
    assert before["u7"].traffic_revision == 4

    client.set_traffic(FAMILY, {"v1": 8000, "v2": 2000}, fallbacks=["v3"])
    after = {each.sticky_key: each.unwrap() for each in client.batch_select((FAMILY, key) for key in before)}
    moved = {(before[key].version, after[key].version) for key in before if before[key].version != after[key].version}
    assert moved == {("v1", "v2")}

    client.commit([Deactivate(V1), Deactivate(V2), Activate(V3)])
    fallback = client.select(FAMILY, "u7")
    assert (fallback.version, fallback.choice.rule) == ("v3", Rule.FALLBACK)
    assert set(fallback.choice.inactive_versions) == {"v1", "v2"}
    assert client.select(FAMILY, "u7", as_of=release.revision).version == before["u7"].version
    client.deactivate(V3)
    with pytest.raises(NoActiveVersion):
        client.select(FAMILY)
    [absent] = client.batch_select([("nobody/s/prod", "")])
    assert isinstance(absent.error, NoActiveVersion)


@pytest.mark.usefixtures("release")
def test_what_is_refused_is_named(client: Client) -> None:
    with pytest.raises(RouteExists) as exists:
        client.commit([Deactivate(V1), Create(V2, "https://x.internal"), Delete(V1)])
    assert [refusal.index for refusal in exists.value.refusals] == [1, 2]
    assert [refusal.reason for refusal in exists.value.refusals] == ["ROUTE_EXISTS", "ROUTE_IN_TRAFFIC"]
    assert isinstance(exists.value.refusals[0], Refusal)
    assert client.get(V1).active
    with pytest.raises(InvalidArgument) as malformed:
        client.commit([Deactivate(V1), Create(V2, "not a url")])
    assert [refusal.index for refusal in malformed.value.refusals] == [1]
    with pytest.raises(RouteInTraffic) as named:
        client.delete(V1)
    assert named.value.traffic_revision == 4
    with pytest.raises(TargetNotFound) as absent:
        client.set_traffic(FAMILY, {"v9": 10_000})
    assert absent.value.versions == ("v9",)
    with pytest.raises(InvalidArgument):
        client.set_traffic(FAMILY, {"v1": 1})
    client.delete_traffic(FAMILY)
    with pytest.raises(TrafficNotFound):
        client.get_traffic(FAMILY)
    with pytest.raises(AmbiguousVersion) as ambiguous:
        client.select(FAMILY)
    assert ambiguous.value.versions == ("v1", "v2")


@pytest.mark.usefixtures("release")
def test_a_route_that_is_read_is_not_taken_away(client: Client) -> None:
    client.resolve(V1, min_revision=0)
    client.select(FAMILY, "u7")
    deadline = time.monotonic() + 30
    while True:
        try:
            client.deactivate(V1, if_unused_for=timedelta(minutes=5))
        except RouteInUse as error:
            [reader] = error.readers
            assert reader.subject == "anonymous"
            assert reader.time > datetime.now(UTC) - timedelta(minutes=5)
            return
        assert time.monotonic() < deadline
        client.activate(V1)
        client.resolve(V1)


def test_a_change_set_is_undone_unless_it_was_changed_since(client: Client, release: ChangeSetResult) -> None:
    client.update(V2, url="https://new.internal", reason="by hand")
    with pytest.raises(ChangedSince) as caught:
        client.revert(release.change_set_id)
    assert caught.value.count == 1
    [violation] = caught.value.violations
    assert violation.field == V2
    assert "by hand" in violation.description
    planned = client.revert(release.change_set_id, force=True, dry_run=True)
    assert client.get(V1).active
    done = client.revert(release.change_set_id, force=True, reason="roll back")
    assert (done.size, planned.size) == (4, 4)
    assert list(client.list()) == []
    assert client.revert((done.change_set_id, done.revision)).size == 4
    assert client.get_traffic(FAMILY).weights == {"v1": 9000, "v2": 1000}
    assert client.get(V2).url == "https://new.internal"


def test_moments_are_told_from_the_history(client: Client, release: ChangeSetResult) -> None:
    client.commit([Deactivate(V1), SetTraffic(FAMILY, {"v2": 10_000})])
    between = client.changes(after_revision=release.revision, before_revision=release.revision + 2)
    moment = next(between).occur_time
    earlier = moment - timedelta(microseconds=1)
    assert client.get(V1, as_of=release.revision) == client.get(V1, as_of=earlier)
    assert client.get(V1, as_of=earlier).active
    assert not client.get(V1, as_of=moment).active
    assert client.get_traffic(FAMILY, as_of=earlier).weights == {"v1": 9000, "v2": 1000}
    assert [route.active for route in client.list(as_of=earlier)] == [True, True, False]
    assert [change.revision for change in client.changes(after_time=earlier)] == [5, 6]
    assert [change.revision for change in client.changes(before_time=earlier)] == [1, 2, 3, 4]
    traffic, route = client.diff(earlier)
    assert isinstance(traffic.after, Traffic)
    assert (traffic.after.weights, str(route.key)) == ({"v2": 10_000}, V1)
    assert client.diff(release.revision, moment) == client.diff(earlier, 6) == (traffic, route)
    assert client.diff(datetime.now(UTC)) == ()
    with pytest.raises(RevisionInFuture) as future:
        client.diff(7)
    assert future.value.last_revision == 6


@pytest.mark.usefixtures("release")
async def test_asyncio_does_the_same(address: str) -> None:
    async with AsyncClient(address, timeout=30) as client:
        assert (await client.select(FAMILY, "u7")).traffic_revision == 4
        assert [each.weights async for each in client.list_traffic(tenant="team-a")] == [{"v1": 9000, "v2": 1000}]
        assert len(await client.diff(0)) == 4
        assert (await client.revert(1)).size == 4


@pytest.mark.usefixtures("release")
def test_the_commands_read_it(client: Client, command: Command, address: str) -> None:
    client.commit([Deactivate(V1), SetTraffic(FAMILY, {"v2": 10_000})], reason="cut over")
    client.select(FAMILY)

    done = run("pointsman", "--server", address, "select", FAMILY, "--key", "u7")
    assert (done.stdout, done.stderr) == ("https://v2.internal\n", "v2, by the weights of the traffic (revision 6)\n")
    assert "v1, by" in command("select", FAMILY, "--key", "u7", "--as-of", "4").stderr
    assert "traffic   v2=100%\n" in command("traffic", "get", FAMILY).stdout
    assert "v1=90% v2=10%; fallback v3" in command("traffic", "get", FAMILY, "--as-of", "4").stdout
    assert FAMILY in command("traffic", "list").stdout
    assert "state     active" in command("get", V1, "--as-of", "4").stdout
    assert command("diff", "--from", "4").stdout.splitlines() == [
        f"~ {FAMILY}  traffic: v1=90% v2=10%; fallback v3 → v2=100%",
        f"~ {V1}  active → inactive",
    ]
    lines = command("history", "--sets").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["SET", "5", "1"]
    assert "1 of 4" in command("history", "--sets", V2).stdout
    explained = command("explain", FAMILY).stdout
    assert "why       v2, by the weights of the traffic (revision 6)\n" in explained
    assert "(cut over)" in explained
    document = json.loads(command("explain", V1, "--json").stdout)
    assert document["error"]["reason"] == "ROUTE_INACTIVE"
    assert [layer["source"] for layer in document["layers"]] == ["LOCAL", "REDIS", "POSTGRES"]
