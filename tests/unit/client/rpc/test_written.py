"""written: the keys that a mutation wrote."""

from pointsman import Activate, ChangeSetResult, Create, DeleteTraffic, RouteKey, SetTraffic
from pointsman.rpc import requests, traffic_requests
from pointsman.rpc.convert import change_of
from pointsman.rpc.written import names_all, written_keys
from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb

KEY = RouteKey("a", "b", "c", "d")
TRAFFIC = RouteKey("a", "b", "c", "")


def test_are_those_of_the_request() -> None:
    assert list(written_keys(requests.delete(KEY, 0, "", ""), None)) == [([KEY], False)]
    assert list(written_keys(requests.activate(KEY, 0, True, "", ""), None)) == [([KEY], True)]


def test_of_traffic_have_no_version() -> None:
    request = traffic_requests.set_traffic("a/b/c", {"v1": 10_000}, (), 0, "", "")
    assert list(written_keys(request, None)) == [([TRAFFIC], False)]


def test_of_an_import_are_those_of_its_routes() -> None:
    request = pb.ImportRequest(routes=[pb.ImportedRoute(key=requests.key_message(KEY))])
    assert list(written_keys(request, None)) == [([KEY], False)]


def test_of_a_commit_are_those_of_its_mutations() -> None:
    mutations = [
        Create(KEY, "https://d"),
        Activate(KEY, exclusive=True),
        SetTraffic("a/b/c", {}),
        DeleteTraffic("a/b/c"),
    ]
    request = traffic_requests.commit(mutations, False, "", "")
    assert list(written_keys(request, None)) == [([KEY], False), ([KEY], True), ([TRAFFIC], False), ([TRAFFIC], False)]


def test_of_a_revert_are_those_of_its_changes() -> None:
    change = change_of(route_pb2.RouteChange(key=requests.key_message(KEY)))
    request = traffic_requests.revert(7, False, False, "", "", "")
    assert list(written_keys(request, ChangeSetResult(8, 8, (change,)))) == [([KEY], False)]


def test_are_not_all_named_of_a_revert_whose_changes_do_not_fit() -> None:
    revert = traffic_requests.revert(7, False, False, "", "", "")
    commit = traffic_requests.commit([Create(KEY, "https://d")], False, "", "")
    assert names_all(revert, ChangeSetResult(8, 8, ()))
    assert not names_all(revert, ChangeSetResult(8, 9, (), omitted_change_count=1))
    assert names_all(commit, ChangeSetResult(8, 9, (), omitted_change_count=1))
