"""Commit, on both transports: all of its mutations or none, as one change set."""

import concurrent.futures
import itertools

import grpc
import pytest

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import (
    CHANGE_KIND_ACTIVATED,
    CHANGE_KIND_CREATED,
    CHANGE_KIND_DEACTIVATED,
    CHANGE_KIND_DELETED,
    CHANGE_KIND_TRAFFIC_SET,
    RouteKey,
)
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficRequest, GetTrafficRequest, SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget
from tests.support.refusals import refused

URL = "https://committed.internal:8443"
_tenants = itertools.count(1)


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses."""
    return f"committed-{next(_tenants)}"


def key(tenant: str, version: str = "v1", service: str = "payments") -> RouteKey:
    return RouteKey(tenant=tenant, service=service, env="prod", version=version)


def create(tenant: str, version: str = "v1", *, active: bool = True, service: str = "payments") -> pb.Mutation:
    return pb.Mutation(create=pb.CreateRequest(key=key(tenant, version, service), url=URL, active=active))


def activate(tenant: str, version: str, *, exclusive: bool = False) -> pb.Mutation:
    return pb.Mutation(activate=pb.ActivateRequest(key=key(tenant, version), exclusive=exclusive))


def delete(tenant: str, version: str, expected_revision: int = 0) -> pb.Mutation:
    return pb.Mutation(delete=pb.DeleteRequest(key=key(tenant, version), expected_revision=expected_revision))


def set_traffic(tenant: str, *targets: tuple[str, int]) -> pb.Mutation:
    wanted = [TrafficTarget(version=version, weight=weight) for version, weight in targets]
    return pb.Mutation(set_traffic=SetTrafficRequest(tenant=tenant, service="payments", env="prod", targets=wanted))


def changes_of(stub: RouteServiceStub, tenant: str) -> list[route_pb2.RouteChange]:
    return list(stub.ListChanges(pb.ListChangesRequest(tenant=tenant, page_size=1000)).changes)


def test_a_commit_is_one_change_set_of_which_each_mutation_sees_those_before_it(grpc_stub, tenant):
    other = f"{tenant}-too"
    response = grpc_stub.Commit(
        pb.CommitRequest(
            mutations=[
                create(tenant, "v1"),
                create(tenant, "v2", active=False),
                activate(tenant, "v2", exclusive=True),
                activate(tenant, "v2"),
                set_traffic(tenant, ("v2", 10_000)),
                delete(tenant, "v1"),
                create(other, "v1"),
            ],
            request_id="the-move",
            reason="the move",
        )
    )
    first = response.change_set_id
    assert [(each.first_revision - first, each.change_count) for each in response.mutations] == [
        (0, 1), (1, 1), (2, 2), (-first, 0), (4, 1), (5, 1), (6, 1),
    ]  # fmt: skip
    assert [(change.revision - first, change.key.version, change.kind) for change in response.changes] == [
        (0, "v1", CHANGE_KIND_CREATED),
        (1, "v2", CHANGE_KIND_CREATED),
        (2, "v2", CHANGE_KIND_ACTIVATED),
        (3, "v1", CHANGE_KIND_DEACTIVATED),
        (4, "", CHANGE_KIND_TRAFFIC_SET),
        (5, "v1", CHANGE_KIND_DELETED),
        (6, "v1", CHANGE_KIND_CREATED),
    ]
    assert (response.revision, response.omitted_change_count) == (first + 6, 0)
    listed = [*changes_of(grpc_stub, tenant), *changes_of(grpc_stub, other)]
    assert listed == list(response.changes)
    assert {(change.change_set_id, change.change_set_size, change.change_set_end) for change in listed} == {
        (first, 7, first + 6)
    }
    assert {(change.reason, change.request_id, change.actor) for change in listed} == {
        ("the move", "the-move", listed[0].actor)
    }
    assert grpc_stub.Resolve(pb.ResolveRequest(key=key(tenant, "v2"))).route.url == URL


def test_a_commit_with_a_refused_mutation_changes_nothing_and_names_each(grpc_stub, tenant):
    grpc_stub.Create(pb.CreateRequest(key=key(tenant, "v1"), url=URL))
    before = changes_of(grpc_stub, tenant)
    refusal = refused(
        grpc_stub.Commit,
        pb.CommitRequest(
            mutations=[
                create(tenant, "v2"),
                create(tenant, "v1"),
                delete(tenant, "v2", expected_revision=1),
                set_traffic(tenant, ("v9", 10_000)),
                pb.Mutation(update=pb.UpdateRequest(key=key(tenant, "v8"), allow_missing=True, labels=pb.Labels())),
            ]
        ),
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ROUTE_EXISTS")
    assert (refusal.metadata["index"], refusal.metadata["key"]) == ("1", f"{tenant}/payments/prod/v1")
    assert {path: text.partition(":")[0] for path, text in refusal.fields.items()} == {
        "mutations[1]": "ROUTE_EXISTS",
        "mutations[2]": "REVISION_MISMATCH",
        "mutations[3]": "TARGET_NOT_FOUND",
        "mutations[4].update.url": "is required to create the route, which does not exist",
    }
    assert changes_of(grpc_stub, tenant) == before


@pytest.mark.parametrize("count", [2, 400], ids=["few", "many"])
def test_malformed_mutations_are_named_by_their_index(grpc_stub, tenant, count):
    mutations = [create(tenant, f"v{number}") for number in range(count)]
    mutations[1].create.url = "no url"
    named = {
        "mutations[1].create.url": mutations,
        "mutations[1].create.key.version": [*mutations[:1], create(tenant, "no version")],
        f"mutations[{count}]": [*mutations, pb.Mutation()],
        f"mutations[{count}].activate.reason": [
            *mutations, pb.Mutation(activate=pb.ActivateRequest(key=key(tenant), reason="why")),
        ],
        f"mutations[{count}].delete_traffic.request_id": [
            *mutations,
            pb.Mutation(delete_traffic=DeleteTrafficRequest(tenant="a", service="b", env="c", request_id="1")),
        ],
        "mutations[0].set_traffic.targets": [set_traffic(tenant, ("v1", 1), ("v2", 9_000))],
        "mutations[0].set_traffic.targets[1].version": [set_traffic(tenant, ("v1", 5_000), ("v1", 5_000))],
        "mutations": [],
    }  # fmt: skip
    for field, given in named.items():
        refusal = refused(grpc_stub.Commit, pb.CommitRequest(mutations=given))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert field in refusal.fields, refusal.fields


def test_a_dry_run_answers_what_the_commit_would_and_changes_nothing(grpc_stub, tenant):
    grpc_stub.Create(pb.CreateRequest(key=key(tenant, "v1"), url=URL))
    request = pb.CommitRequest(
        mutations=[create(tenant, "v2"), activate(tenant, "v2", exclusive=True)], request_id="id", dry_run=True
    )
    before = changes_of(grpc_stub, tenant)
    dry = grpc_stub.Commit(request)
    assert changes_of(grpc_stub, tenant) == before
    refused(grpc_stub.Resolve, pb.ResolveRequest(key=key(tenant, "v2")))

    request.dry_run = False
    wet = grpc_stub.Commit(request)
    assert list(dry.mutations) == list(wet.mutations)
    assert [(each.revision, each.kind, each.key) for each in dry.changes] == [
        (each.revision, each.kind, each.key) for each in wet.changes
    ]
    assert (dry.revision, dry.change_set_id) == (wet.revision - 2, wet.change_set_id)

    request.dry_run = True
    assert grpc_stub.Commit(request) == wet


def test_a_replay_answers_the_same_with_its_changes(grpc_stub, tenant):
    request = pb.CommitRequest(mutations=[create(tenant, f"v{number}") for number in range(3)], request_id="again")
    first = grpc_stub.Commit(request)
    grpc_stub.Delete(pb.DeleteRequest(key=key(tenant, "v1")))
    assert grpc_stub.Commit(request) == first
    request.mutations[0].create.url += "/other"
    assert refused(grpc_stub.Commit, request).reason == "REQUEST_ID_REUSED"


def test_a_commit_that_finds_all_as_wanted_has_no_change_set(grpc_stub, tenant):
    created = grpc_stub.Create(pb.CreateRequest(key=key(tenant, "v1"), url=URL)).route
    response = grpc_stub.Commit(pb.CommitRequest(mutations=[activate(tenant, "v1"), activate(tenant, "v1")]))
    assert (list(response.changes), response.change_set_id) == ([], 0)
    assert list(response.mutations) == [pb.CommittedMutation()] * 2
    assert response.revision >= created.revision


def test_of_more_changes_than_fit_the_first_are_answered_and_the_others_counted(grpc_stub, tenant):
    labels = {f"label-{number}": "x" * 250 for number in range(20)}
    versions = [f"v{number}" for number in range(600)]
    for start in range(0, 600, 150):
        part = [create(tenant, version) for version in versions[start : start + 150]]
        for mutation in part:
            mutation.create.labels.update(labels)
        grpc_stub.Commit(pb.CommitRequest(mutations=part))
    moved = [pb.Mutation(update=pb.UpdateRequest(key=key(tenant, version), url=f"{URL}/new")) for version in versions]
    request = pb.CommitRequest(mutations=moved, request_id="large")
    first = grpc_stub.Commit(request, timeout=30)
    assert 3 * 1024 * 1024 < first.ByteSize() < 4 * 1024 * 1024
    assert 0 < first.omitted_change_count < 600
    assert len(first.changes) + first.omitted_change_count == len(first.mutations) == 600
    assert grpc_stub.Commit(request, timeout=30) == first
    assert grpc_stub.Resolve(pb.ResolveRequest(key=key(tenant, "v599"))).route.url == f"{URL}/new"


def test_what_was_cached_of_a_large_commit_is_answered_no_more(grpc_stub, tenant):
    services = [f"s{number}" for number in range(300)]
    grpc_stub.Commit(pb.CommitRequest(mutations=[create(tenant, service=service) for service in services]))
    asked = pb.BatchResolveRequest(keys=[key(tenant, service=service) for service in services])
    assert {each.route.url for each in grpc_stub.BatchResolve(asked).results} == {URL}
    moved = [
        pb.Mutation(update=pb.UpdateRequest(key=key(tenant, service=service), url=f"{URL}/new")) for service in services
    ]
    grpc_stub.Commit(pb.CommitRequest(mutations=moved))
    assert {each.route.url for each in grpc_stub.BatchResolve(asked).results} == {f"{URL}/new"}


def test_commits_mutations_and_imports_at_once_leave_whole_sets_and_dense_revisions(grpc_stub, tenant):
    """Each commit swaps which of two families is live, so half of one would show."""
    setup = [create(tenant, "v1"), create(tenant, "v2", active=False)]
    start = grpc_stub.Commit(pb.CommitRequest(mutations=setup)).revision

    def swap(number: int) -> None:
        wanted = ["v1", "v2"] if number % 2 else ["v2", "v1"]
        grpc_stub.Commit(
            pb.CommitRequest(
                mutations=[
                    activate(tenant, wanted[0]),
                    pb.Mutation(deactivate=pb.DeactivateRequest(key=key(tenant, wanted[1]))),
                    create(tenant, f"v{number}", service="log"),
                ]
            )
        )

    def single(number: int) -> None:
        grpc_stub.Create(pb.CreateRequest(key=key(tenant, f"v{number}", "single"), url=URL))

    def import_(number: int) -> None:
        routes = [pb.ImportedRoute(key=key(tenant, f"v{number}-{each}", "bulk"), url=URL) for each in range(5)]
        grpc_stub.Import(pb.ImportRequest(routes=routes))

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: [swap, single, import_][number % 3](number // 3), range(90)))

    changes = changes_of(grpc_stub, tenant)
    first = start - 1
    assert [change.revision for change in changes] == list(range(first, first + len(changes)))
    active = {"v1"}
    for _, group in itertools.groupby(changes[2:], lambda change: change.change_set_id):
        made = list(group)
        assert [change.revision for change in made] == list(
            range(made[0].change_set_id, made[0].change_set_id + made[0].change_set_size)
        )
        for change in made:
            if change.key.service == "payments":
                (active.add if change.after.active else active.discard)(change.key.version)
        assert len(active) == 1


def test_traffic_and_deletes_of_one_commit_keep_every_named_version(grpc_stub, tenant):
    grpc_stub.Commit(pb.CommitRequest(mutations=[create(tenant, "v1"), set_traffic(tenant, ("v1", 10_000))]))
    named = refused(grpc_stub.Commit, pb.CommitRequest(mutations=[delete(tenant, "v1")]))
    assert (named.code, named.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTE_IN_TRAFFIC")
    grpc_stub.Commit(
        pb.CommitRequest(mutations=[create(tenant, "v2"), set_traffic(tenant, ("v2", 10_000)), delete(tenant, "v1")])
    )
    traffic = grpc_stub.GetTraffic(GetTrafficRequest(tenant=tenant, service="payments", env="prod")).traffic
    assert [(target.version, target.weight) for target in traffic.targets] == [("v2", 10_000)]
