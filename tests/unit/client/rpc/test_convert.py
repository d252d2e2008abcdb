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
