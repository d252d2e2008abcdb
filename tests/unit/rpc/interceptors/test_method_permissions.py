"""The permission of each method: all are listed, and the scopes are those of the keys in the request."""

import pytest
from google.protobuf.message import Message

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import xds_service_pb2
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.traffic_methods_pb2 import SetTrafficRequest
from pointsman.v1.usage_pb2 import ReportUsageRequest
from pointsman_server.domain.identity import PERMISSIONS, AccessRole, Permission, Scope
from pointsman_server.rpc import CLIENT_STATUS, DISCOVERY, SERVICE
from pointsman_server.rpc.interceptors.method_permissions import METHODS, NEEDS
from pointsman_server.xds.protocol import messages

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["RouteService"]
KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
OF_KEY = [Scope("team-a", "prod")]


def test_every_method_of_the_service_is_listed_and_no_other() -> None:
    assert DESCRIPTOR.full_name == SERVICE
    assert set(METHODS) == {method.name for method in DESCRIPTOR.methods}


def test_every_method_of_the_port_of_xds_is_listed_and_no_other() -> None:
    described = (
        xds_service_pb2.DESCRIPTOR.services_by_name["XdsService"],
        messages.POOL.FindServiceByName(DISCOVERY),
        messages.POOL.FindServiceByName(CLIENT_STATUS),
    )
    served = {each.full_name: {method.name for method in each.methods} for each in described}
    assert {name: set(needs) for name, needs in NEEDS.items() if name != SERVICE} == served
    assert {need.permission for name, needs in NEEDS.items() if name != SERVICE for need in needs.values()} == {
        Permission.READ
    }


READS = {
    "Resolve",
    "BatchResolve",
    "Get",
    "List",
    "Watch",
    "ReportProgress",
    "GetPropagation",
    "GetUsage",
    "ReportUsage",
    "Select",
    "BatchSelect",
    "Explain",
    "GetTraffic",
    "ListTraffic",
}
WRITES = {
    "Create",
    "Update",
    "Activate",
    "Deactivate",
    "Delete",
    "Import",
    "SetTraffic",
    "DeleteTraffic",
    "Commit",
    "Revert",
}


@pytest.mark.parametrize(
    ("role", "methods"),
    [
        (AccessRole.READER, READS),
        (AccessRole.WRITER, WRITES),
        (AccessRole.AUDITOR, {"ListChanges"}),
        (AccessRole.ADMIN, set(METHODS)),
    ],
)
def test_each_role_may_call_its_methods(role: AccessRole, methods: set[str]) -> None:
    assert {name for name, need in METHODS.items() if need.permission in PERMISSIONS[role]} == methods


@pytest.mark.parametrize(
    ("method", "request_", "scopes"),
    [
        ("Resolve", pb.ResolveRequest(key=KEY), OF_KEY),
        ("Get", pb.GetRequest(key=KEY), OF_KEY),
        ("Create", pb.CreateRequest(key=KEY), OF_KEY),
        ("Update", pb.UpdateRequest(key=KEY), OF_KEY),
        ("Activate", pb.ActivateRequest(key=KEY), OF_KEY),
        ("Deactivate", pb.DeactivateRequest(key=KEY), OF_KEY),
        ("Delete", pb.DeleteRequest(key=KEY), OF_KEY),
        ("List", pb.ListRequest(), [Scope("", "")]),
        ("List", pb.ListRequest(tenant="team-a", service="payments"), [Scope("team-a", "")]),
        ("List", pb.ListRequest(env="prod"), [Scope("", "prod")]),
        ("ListChanges", pb.ListChangesRequest(tenant="team-a", env="prod"), OF_KEY),
        ("ListChanges", pb.ListChangesRequest(), [Scope("", "")]),
        ("Select", pb.SelectRequest(tenant="team-a", env="prod"), OF_KEY),
        ("Explain", pb.ExplainRequest(tenant="team-a", env="prod"), OF_KEY),
        ("SetTraffic", SetTrafficRequest(tenant="team-a", env="prod"), OF_KEY),
        # What a revert changes only the history says.
        ("Revert", pb.RevertRequest(change_set_id=7), []),
        (
            "BatchSelect",
            pb.BatchSelectRequest(selections=[pb.Selection(tenant=tenant, env="x") for tenant in "aba"]),
            [Scope("a", "x"), Scope("b", "x")],
        ),
        (
            "Commit",
            pb.CommitRequest(
                mutations=[
                    pb.Mutation(create=pb.CreateRequest(key=KEY)),
                    pb.Mutation(set_traffic=SetTrafficRequest(tenant="team-b", env="prod")),
                    pb.Mutation(delete=pb.DeleteRequest(key=KEY)),
                    # Refused later, as one that says nothing; until then it must not be permitted to everyone.
                    pb.Mutation(),
                ]
            ),
            [*OF_KEY, Scope("team-b", "prod"), Scope("", "")],
        ),
        (
            "Import",
            pb.ImportRequest(
                routes=[
                    pb.ImportedRoute(key=RouteKey(tenant=tenant, service="s", env=env, version="v1"))
                    for tenant, env in (("b", "x"), ("a", "x"), ("b", "x"), ("b", "y"))
                ]
            ),
            [Scope("b", "x"), Scope("a", "x"), Scope("b", "y")],
        ),
        (
            "ReportUsage",
            ReportUsageRequest(
                reads=[
                    ReportUsageRequest.Read(key=RouteKey(tenant=tenant, service="s", env="x", version=version))
                    for tenant in ("b", "a")
                    for version in ("v1", "v2")
                ]
            ),
            [Scope("b", "x"), Scope("a", "x")],
        ),
        (
            "BatchResolve",
            pb.BatchResolveRequest(
                keys=[
                    RouteKey(tenant=tenant, service="s", env=env, version=version)
                    for tenant, env in (("b", "x"), ("a", "x"), ("b", "x"), ("b", "y"))
                    for version in ("v1", "v2")
                ]
            ),
            [Scope("b", "x"), Scope("a", "x"), Scope("b", "y")],
        ),
    ],
)
def test_a_call_is_about_the_tenants_and_envs_of_its_request(
    method: str, request_: Message, scopes: list[Scope]
) -> None:
    assert list(METHODS[method].scopes(request_)) == scopes


def test_every_permission_is_needed_by_a_method() -> None:
    assert {need.permission for need in METHODS.values()} == set(Permission)
