"""convert: an older client meets a newer server."""

from pointsman import ChangeKind, Source
from pointsman.rpc.convert import change_of, resolution_of
from pointsman.v1 import route_pb2, route_service_pb2


def test_a_source_of_the_future_is_unknown() -> None:
    response = route_service_pb2.ResolveResponse()
    response.provenance.MergeFromString(b"\x08\x63")  # source = 99
    assert resolution_of(response).source is Source.UNKNOWN


def test_a_kind_of_the_future_is_unknown() -> None:
    change = route_pb2.RouteChange.FromString(b"\x18\x63")  # kind = 99
    assert change_of(change).kind is ChangeKind.UNKNOWN


def test_a_change_of_traffic_has_its_states_and_its_set() -> None:
    message = route_pb2.RouteChange(revision=5, change_set_id=4, change_set_size=2)
    message.key.tenant, message.key.service, message.key.env = "a", "b", "c"
    message.kind = route_pb2.CHANGE_KIND_TRAFFIC_SET
    message.traffic_after.targets.add(version="v1", weight=10_000)
    change = change_of(message)
    assert (change.kind, str(change.key)) == (ChangeKind.TRAFFIC_SET, "a/b/c")
    assert (change.change_set_id, change.change_set_size) == (4, 2)
    assert change.traffic_before is None
    assert change.traffic_after is not None
    assert change.traffic_after.weights == {"v1": 10_000}


def test_a_change_of_a_server_that_records_no_sets_has_none() -> None:
    change = change_of(route_pb2.RouteChange(revision=5))
    assert (change.change_set_id, change.change_set_size) == (0, 0)
