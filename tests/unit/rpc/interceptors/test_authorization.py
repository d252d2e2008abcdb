"""The stage that permits or denies calls."""

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.watch_pb2 import WatchRequest
from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import ANONYMOUS, Credential, Identity
from pointsman_server.rpc import CLIENT_STATUS, SERVICE, XDS
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.interceptors.authorization import authorize
from pointsman_server.rpc.interceptors.stage import Method, StreamContext
from pointsman_server.telemetry.metrics import Metrics
from tests.support.call_context import CallContext


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


async def call(metrics: Metrics, who: Identity, method: str, request: Any, service: str = SERVICE) -> str:
    """Call through the stage alone, as ``who``."""

    async def work(_request: Any, _context: Any) -> str:
        return "done"

    policy = Policy()
    context = cast("Any", None)
    handler = authorize(Permissions(lambda: policy), metrics.denied)(Method(service, method), work)
    begin_call(context).identity = who
    return cast("str", await handler(request, context))


def denied(registry: CollectorRegistry, permission: str) -> float:
    return registry.get_sample_value("pointsman_denied_total", {"permission": permission}) or 0.0


def batch(*tenants: str) -> pb.BatchResolveRequest:
    return pb.BatchResolveRequest(
        keys=[RouteKey(tenant=tenant, service="s", env="prod", version="v1") for tenant in tenants]
    )


READER = Identity("key:ci", Credential.API_KEY, (parse_grant("reader:a"), parse_grant("reader:b*")))


async def test_what_is_permitted_is_done(metrics: Metrics) -> None:
    assert await call(metrics, READER, "BatchResolve", batch("a", "b1", "b2")) == "done"
    assert denied(metrics.registry, "routes.read") == 0


async def test_of_many_keys_the_first_that_is_not_permitted_denies_the_whole_call(metrics: Metrics) -> None:
    with pytest.raises(Forbidden) as caught:
        await call(metrics, READER, "BatchResolve", batch("a", "x", "y"))
    assert caught.value.metadata == {"permission": "routes.read", "tenant": "x", "env": "prod"}
    # Once, however many keys there are.
    assert denied(metrics.registry, "routes.read") == 1


async def test_a_call_over_all_tenants_needs_a_grant_for_all(metrics: Metrics) -> None:
    with pytest.raises(Forbidden, match=r"no routes\.read in all tenants"):
        await call(metrics, READER, "List", pb.ListRequest())
    everywhere = Identity("key:ci", Credential.API_KEY, (parse_grant("reader:*"),))
    assert await call(metrics, everywhere, "List", pb.ListRequest()) == "done"


async def test_a_method_that_is_not_listed_is_denied_to_admins_too(metrics: Metrics) -> None:
    admin = Identity("key:root", Credential.API_KEY, (parse_grant("admin:*"),))
    with pytest.raises(Forbidden, match="key:root has no permission for Teleport"):
        await call(metrics, admin, "Teleport", None)
    assert denied(metrics.registry, "unlisted") == 1


async def test_who_was_not_authenticated_is_denied_though_anonymous_is_granted_everything(metrics: Metrics) -> None:
    with pytest.raises(Forbidden, match=r"anonymous has no routes\.read"):
        await call(metrics, ANONYMOUS, "BatchResolve", batch("a"))


async def test_other_services_pass(metrics: Metrics) -> None:
    assert await call(metrics, ANONYMOUS, "Check", None, "grpc.health.v1.Health") == "done"


@pytest.mark.parametrize(("service", "method"), [(XDS, "ExplainXds"), (CLIENT_STATUS, "FetchClientStatus")])
async def test_what_is_checked_by_name_passes_for_callers_who_are_known(
    metrics: Metrics, service: str, method: str
) -> None:
    assert await call(metrics, READER, method, None, service) == "done"
    with pytest.raises(Forbidden):
        await call(metrics, ANONYMOUS, method, None, service)
    with pytest.raises(Forbidden):
        await call(metrics, READER, "Other", None, service)


async def test_a_stream_ends_when_the_policy_no_longer_permits_it(metrics: Metrics) -> None:
    policies = [Policy()]
    context = CallContext()
    watch = Method(SERVICE, "Watch", response_streaming=True)

    async def work(_request: Any, stream: Any) -> None:
        await stream.write(b"one")
        begin_call(context).identity = READER
        await stream.write(b"two")
        begin_call(context).identity = Identity("key:ci", Credential.API_KEY, (parse_grant("reader:other"),))
        await stream.write(b"three")

    handler = authorize(Permissions(lambda: policies[0]), metrics.denied)(watch, work)
    begin_call(context).identity = READER
    with pytest.raises(Forbidden):
        await handler(WatchRequest(tenant="a"), cast("Any", StreamContext(cast("Any", context))))
    assert context.written == [b"one", b"two"]


async def test_a_stream_of_every_tenant_needs_the_permission_for_every_tenant(metrics: Metrics) -> None:
    with pytest.raises(Forbidden):
        await call(metrics, READER, "Watch", WatchRequest())
