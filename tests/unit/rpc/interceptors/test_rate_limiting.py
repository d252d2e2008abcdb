"""Which calls count against which limits, when, and for how much."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficRequest
from pointsman_server.domain.access_errors import RateLimited
from pointsman_server.ports.quota import QuotaUnavailable, Taking
from pointsman_server.rpc import DISCOVERY, SERVICE
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.interceptors.rate_limiting import (
    Throttling,
    charge,
    tenants,
    throttle_callers,
    throttle_tenants,
)
from pointsman_server.rpc.interceptors.stage import Method
from pointsman_server.runtime.rate_limiter import Limiter, Limits, Rate

READS = ("Resolve", "BatchResolve", "Get", "List", "ListChanges")
WRITES = ("Create", "Update", "Activate", "Deactivate", "Delete", "Import")
CONTEXT = cast("Any", None)


def limiter(name: str, burst: int = 10) -> Limiter:
    # By the hour: nothing comes back while a test runs.
    return Limiter(name, Rate(burst / 3600, 3600))


def limits(kind: str) -> Limits:
    return Limits(limiter(f"identity.{kind}"), limiter(f"tenant.{kind}"))


class Quota:
    """Takes everything, or does what it is told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.taken: list[tuple[str, str]] = []

    async def take(self, takings: Sequence[Taking]) -> None:
        self.taken += [(taking.limit, taking.subject) for taking in takings]
        if self.failure:
            raise self.failure


class Fixture:
    """Both stages around a handler that counts."""

    def __init__(self, quota: Quota | None = None) -> None:
        self.told: list[str] = []
        self.calls = 0
        self.throttling = Throttling(limits("reads"), limits("writes"), quota, self.told.append)

    async def proceed(self, request: Any, context: Any) -> str:
        self.calls += 1
        return "done"

    async def call(self, name: str, request: Any, service: str = SERVICE) -> str:
        begin_call(CONTEXT)
        method = Method(service, name)
        inner = throttle_tenants(self.throttling)(method, self.proceed)
        return cast("str", await throttle_callers(self.throttling)(method, inner)(request, CONTEXT))

    async def until_refused(self, name: str, request: Any) -> tuple[int, str]:
        for number in range(100):
            try:
                await self.call(name, request)
            except RateLimited as error:
                return number, error.metadata["limit"]
        raise AssertionError("never refused")


def imports(*tenants: str) -> pb.ImportRequest:
    return pb.ImportRequest(routes=[pb.ImportedRoute(key=key(tenant)) for tenant in tenants])


def key(tenant: str = "team-a") -> RouteKey:
    return RouteKey(tenant=tenant, service="payments", env="prod", version="v1")


def request_of(name: str, tenant: str = "team-a") -> Any:
    if name == "BatchResolve":
        return pb.BatchResolveRequest(keys=[key(tenant)])
    if name == "Import":
        return imports(tenant)
    kind = getattr(pb, f"{name}Request")
    return kind(tenant=tenant) if name in ("List", "ListChanges") else kind(key=key(tenant))


@pytest.mark.parametrize("name", READS + WRITES)
async def test_every_method_counts_for_who_calls(name):
    fixture = Fixture()
    kind = "reads" if name in READS else "writes"
    for number in range(10):
        await fixture.call(name, request_of(name, f"tenant-{number}"))
    with pytest.raises(RateLimited) as caught:
        await fixture.call(name, request_of(name, "another"))

    assert caught.value.metadata["limit"] == f"identity.{kind}"
    assert (fixture.calls, fixture.told) == (10, [f"identity.{kind}"])


@pytest.mark.parametrize("name", READS + WRITES)
async def test_every_method_counts_for_the_tenant_that_it_names(name):
    fixture = Fixture()
    kind = "reads" if name in READS else "writes"
    fixture.throttling = Throttling(
        Limits(None, limiter("tenant.reads")), Limits(None, limiter("tenant.writes")), None, fixture.told.append
    )

    assert await fixture.until_refused(name, request_of(name)) == (10, f"tenant.{kind}")
    assert await fixture.call(name, request_of(name, "team-b")) == "done"
    assert fixture.told == [f"tenant.{kind}"]


async def test_reads_and_writes_are_counted_apart():
    fixture = Fixture()
    await fixture.until_refused("Create", request_of("Create"))

    assert await fixture.call("Resolve", request_of("Resolve")) == "done"


async def test_a_batch_costs_its_number_of_keys():
    fixture = Fixture()
    await fixture.call("BatchResolve", pb.BatchResolveRequest(keys=[key()] * 9))
    await fixture.call("Resolve", request_of("Resolve"))

    assert await fixture.until_refused("Resolve", request_of("Resolve")) == (0, "identity.reads")


async def test_a_batch_larger_than_any_burst_passes_with_a_whole_one():
    assert await Fixture().call("BatchResolve", pb.BatchResolveRequest(keys=[key()] * 1000)) == "done"


async def test_what_is_no_message_counts_for_who_calls():
    fixture = Fixture()
    stage = throttle_callers(fixture.throttling)(Method(SERVICE, "BatchResolve"), fixture.proceed)
    begin_call(CONTEXT)
    for _ in range(10):
        await stage(object(), CONTEXT)
    with pytest.raises(RateLimited):
        await stage(object(), CONTEXT)


@pytest.mark.parametrize("name", ["List", "ListChanges"])
def test_a_list_over_all_tenants_costs_none_of_them(name):
    assert tenants(Method(SERVICE, name), request_of(name, "")) == {}


def test_a_batch_costs_each_tenant_its_keys():
    request = pb.BatchResolveRequest(keys=[key("a"), key("b"), key("a")])

    assert tenants(Method(SERVICE, "BatchResolve"), request) == {"a": 2, "b": 1}


def test_an_import_costs_each_tenant_its_routes():
    assert tenants(Method(SERVICE, "Import"), imports("a", "b", "a")) == {"a": 2, "b": 1}


async def test_an_import_costs_its_caller_as_many_writes_as_it_has_routes():
    fixture = Fixture()
    await fixture.call("Import", imports(*"abcdefghi"))
    assert await fixture.until_refused("Create", request_of("Create")) == (1, "identity.writes")


def commits(*names: str) -> pb.CommitRequest:
    creates = [pb.Mutation(create=pb.CreateRequest(key=key(name))) for name in names]
    return pb.CommitRequest(mutations=[*creates, pb.Mutation(delete_traffic=DeleteTrafficRequest(tenant=names[0]))])


def test_a_commit_costs_each_tenant_its_mutations():
    assert tenants(Method(SERVICE, "Commit"), commits("a", "b", "a")) == {"a": 3, "b": 1}


async def test_a_commit_costs_its_caller_as_many_writes_as_it_has_mutations():
    fixture = Fixture()
    await fixture.call("Commit", commits(*"abcdefgh"))
    assert await fixture.until_refused("Create", request_of("Create")) == (1, "identity.writes")


async def test_other_services_are_not_held_back():
    fixture = Fixture()
    for _ in range(100):
        assert await fixture.call("Check", object(), service="grpc.health.v1.Health") == "done"


@pytest.mark.parametrize("stage", [throttle_callers, throttle_tenants])
def test_a_method_without_a_limit_is_not_wrapped(stage):
    fixture = Fixture()
    throttling = Throttling(Limits(), limits("writes"), None, fixture.told.append)

    assert stage(throttling)(Method(SERVICE, "Resolve"), fixture.proceed) == fixture.proceed


class TestTheSharedQuota:
    async def test_writes_take_from_it_for_caller_and_tenant_at_once(self):
        quota = Quota()
        await Fixture(quota).call("Create", request_of("Create"))

        assert quota.taken == [("identity.writes", "anonymous"), ("tenant.writes", "team-a")]

    async def test_reads_never_ask_it(self):
        quota = Quota()
        await Fixture(quota).call("Resolve", request_of("Resolve"))

        assert quota.taken == []

    async def test_what_it_refuses_is_refused_and_counted(self):
        fixture = Fixture(Quota(RateLimited("tenant.writes", 1)))
        with pytest.raises(RateLimited):
            await fixture.call("Create", request_of("Create"))

        assert (fixture.calls, fixture.told) == (0, ["tenant.writes"])

    async def test_while_it_is_out_the_process_counts_alone(self):
        assert await Fixture(Quota(QuotaUnavailable())).until_refused("Create", request_of("Create")) == (
            10,
            "identity.writes",
        )

    async def test_it_is_not_asked_for_what_the_process_refuses(self):
        quota = Quota()
        fixture = Fixture(quota)
        await fixture.until_refused("Create", request_of("Create"))

        assert len(quota.taken) == 20


class Reverting(Fixture):
    """The handler of Revert, which knows only later what it costs."""

    def __init__(self, costs: Mapping[str, int], quota: Quota | None = None) -> None:
        super().__init__(quota)
        self.costs = costs

    async def proceed(self, request: Any, context: Any) -> str:
        if isinstance(request, pb.RevertRequest):
            await charge(self.costs)
        return await super().proceed(request, context)

    async def revert(self) -> str:
        return await self.call("Revert", pb.RevertRequest(change_set_id=1))


async def test_a_revert_costs_its_caller_and_its_tenants_what_it_changes():
    fixture = Reverting({"team-a": 6, "team-b": 3})
    assert await fixture.revert() == "done"
    assert await fixture.until_refused("Create", request_of("Create", "team-c")) == (1, "identity.writes")

    fixture = Reverting({"team-a": 6})
    fixture.throttling = Throttling(Limits(), Limits(None, limiter("tenant.writes")), None, fixture.told.append)
    assert await fixture.revert() == "done"
    assert await fixture.until_refused("Create", request_of("Create")) == (4, "tenant.writes")


async def test_a_revert_larger_than_any_burst_passes_with_a_whole_one():
    fixture = Reverting({"team-a": 1000})
    assert await fixture.revert() == "done"
    with pytest.raises(RateLimited):
        await fixture.revert()
    assert fixture.told == ["identity.writes"]


async def test_a_revert_counts_against_the_shared_quota_once():
    quota = Quota()
    fixture = Reverting({"team-a": 2, "team-b": 1}, quota)
    await fixture.revert()
    assert sorted(quota.taken) == [
        ("identity.writes", "anonymous"),
        ("tenant.writes", "team-a"),
        ("tenant.writes", "team-b"),
    ]


async def test_what_changes_nothing_costs_one_call():
    fixture = Reverting({})
    for _ in range(10):
        assert await fixture.revert() == "done"
    with pytest.raises(RateLimited):
        await fixture.revert()


async def test_without_limits_nothing_is_charged():
    await charge({"team-a": 1})


async def test_acknowledgements_of_xds_cost_nothing():
    fixture = Fixture()
    request = SimpleNamespace(response_nonce="1")
    for _ in range(30):
        await fixture.call("StreamAggregatedResources", request, DISCOVERY)
    request.response_nonce = ""
    for _ in range(10):
        await fixture.call("StreamAggregatedResources", request, DISCOVERY)
    with pytest.raises(RateLimited):
        await fixture.call("StreamAggregatedResources", request, DISCOVERY)
