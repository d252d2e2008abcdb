"""The methods about traffic and change sets: as ``operations`` has the others."""

from pointsman.change_sets import ChangeSetResult, MutationResult
from pointsman.memory import Sighting
from pointsman.results import Traffic
from pointsman.rpc.convert import change_of, traffic_of
from pointsman.rpc.operations import Operation, Page
from pointsman.rpc.selections import Answer, all_selected, answers_of, explanation_of, selected, selection_of
from pointsman.traffic import Explanation, Selection
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import traffic_methods_pb2 as traffic_pb


def _traffic(response: traffic_pb.SetTrafficResponse | traffic_pb.GetTrafficResponse) -> Traffic:
    return traffic_of(response.traffic)


def _got(traffic: Traffic) -> list[Sighting]:
    return [Sighting(str(traffic.key), traffic.revision, traffic.revision, "")]


def _page(response: traffic_pb.ListTrafficResponse) -> Page[Traffic]:
    return Page(tuple(map(traffic_of, response.traffic)), response.next_page_token)


def _revision(
    response: traffic_pb.SetTrafficResponse | traffic_pb.DeleteTrafficResponse | pb.CommitResponse | pb.RevertResponse,
) -> int:
    return response.revision


def _committed(response: pb.CommitResponse) -> ChangeSetResult:
    return ChangeSetResult(
        response.change_set_id,
        response.revision,
        tuple(map(change_of, response.changes)),
        response.omitted_change_count,
        tuple(MutationResult(each.first_revision, each.change_count) for each in response.mutations),
    )


def _reverted(response: pb.RevertResponse) -> ChangeSetResult:
    return ChangeSetResult(
        response.change_set_id,
        response.revision,
        tuple(map(change_of, response.changes)),
        response.omitted_change_count,
    )


SELECT: Operation[pb.SelectRequest, pb.SelectResponse, Selection] = Operation("Select", selection_of, shown=selected)
BATCH_SELECT: Operation[pb.BatchSelectRequest, pb.BatchSelectResponse, tuple[Answer, ...]] = Operation(
    "BatchSelect", answers_of, shown=all_selected
)
EXPLAIN: Operation[pb.ExplainRequest, pb.ExplainResponse, Explanation] = Operation("Explain", explanation_of)
SET_TRAFFIC: Operation[traffic_pb.SetTrafficRequest, traffic_pb.SetTrafficResponse, Traffic] = Operation(
    "SetTraffic", _traffic, _revision
)
GET_TRAFFIC: Operation[traffic_pb.GetTrafficRequest, traffic_pb.GetTrafficResponse, Traffic] = Operation(
    "GetTraffic", _traffic, shown=_got
)
LIST_TRAFFIC: Operation[traffic_pb.ListTrafficRequest, traffic_pb.ListTrafficResponse, Page[Traffic]] = Operation(
    "ListTraffic", _page
)
DELETE_TRAFFIC: Operation[traffic_pb.DeleteTrafficRequest, traffic_pb.DeleteTrafficResponse, int] = Operation(
    "DeleteTraffic", _revision, _revision
)


def commit(dry_run: bool) -> Operation[pb.CommitRequest, pb.CommitResponse, ChangeSetResult]:
    """Return Commit; a dry run writes nothing that later reads would have to see."""
    return Operation("Commit", _committed, None if dry_run else _revision)


def revert(dry_run: bool) -> Operation[pb.RevertRequest, pb.RevertResponse, ChangeSetResult]:
    """Return Revert, as ``commit`` does."""
    return Operation("Revert", _reverted, None if dry_run else _revision)
