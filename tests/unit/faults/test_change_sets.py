"""The rules of change sets find every violation that is planted, and none in a clean history."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pointsman.v1 import route_pb2, traffic_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.traffic_methods_pb2 import SetTrafficRequest
from tests.faults.checking import Model
from tests.faults.history import History, Row, Write
from tests.faults.traffic.change_sets import check_sets
from tests.faults.traffic.records import SetWrite, Target
from tests.unit.faults.histories import EPOCH, F, route, rows_of, traffic

V0, V1 = f"{F}/v0", f"{F}/v1"


class Case:
    """A commit of routes and their traffic; a change of all; its revert; a refused one; one with nothing to undo."""

    def __init__(self) -> None:
        self.rows = rows_of(
            (
                "s1",
                [
                    (V0, "CREATED", route("u0")),
                    (V1, "CREATED", route("u0")),
                    (f"{F}/", "TRAFFIC_SET", traffic(10_000, 0)),
                ],
            ),
            ("s2", [(V0, "UPDATED", route("u1")), (f"{F}/", "TRAFFIC_SET", traffic(4000, 6000))]),
            ("s3", [(V0, "UPDATED", route("u0")), (f"{F}/", "TRAFFIC_SET", traffic(10_000, 0))]),
        )
        first, second, third = self.rows[:3], self.rows[3:5], self.rows[5:]
        mutations = (
            pb.Mutation(update=pb.UpdateRequest(key=key(V0), url="u1")),
            pb.Mutation(activate=pb.ActivateRequest(key=key(V1))),
            pb.Mutation(set_traffic=division(4000, 6000)),
        )
        steps = [committed(4), pb.CommittedMutation(), committed(5)]
        begun = (
            pb.Mutation(create=pb.CreateRequest(key=key(V0), url="u0")),
            pb.Mutation(create=pb.CreateRequest(key=key(V1), url="u0")),
            pb.Mutation(set_traffic=division(10_000, 0)),
        )
        self.begin = SetWrite(
            write("s1", 1.0, 1), begun, reply=commit_reply(first, [committed(1), committed(2), committed(3)])
        )
        self.change = SetWrite(write("s2", 2.0, 4), mutations, reply=commit_reply(second, steps))
        self.revert = SetWrite(write("s3", 3.0, 6, "revert"), target=Target(EPOCH, 4, 5), reply=revert_reply(third))
        self.refused = SetWrite(
            replace(write("s4", 4.0, 0, "revert"), answer="refused"), target=Target(EPOCH, 4, 5), reason="CHANGED_SINCE"
        )
        again, confirmed = Target(EPOCH, 5, 5), write("s5", 5.0, 7, "confirmed")
        self.nothing = SetWrite(confirmed, target=again, force=True, reply=pb.RevertResponse(revision=7))

    @property
    def sets(self) -> list[SetWrite]:
        return [self.begin, self.change, self.revert, self.refused, self.nothing]

    def found(self) -> set[tuple[int, str]]:
        model = Model(History(writes=[each.write for each in self.sets]), self.rows)
        return {(each.promise, each.rule) for each in check_sets(self.sets, [model])}


def key(text: str) -> route_pb2.RouteKey:
    tenant, service, env, version = text.split("/")
    return route_pb2.RouteKey(tenant=tenant, service=service, env=env, version=version)


def targets(*weights: int) -> list[traffic_pb2.TrafficTarget]:
    return [traffic_pb2.TrafficTarget(version=f"v{number}", weight=weight) for number, weight in enumerate(weights)]


def division(*weights: int) -> SetTrafficRequest:
    return SetTrafficRequest(tenant="splits", service="s0", env="prod", targets=targets(*weights))


def committed(revision: int) -> pb.CommittedMutation:
    return pb.CommittedMutation(first_revision=revision, change_count=1)


def write(request_id: str, call: float, revision: int, kind: str = "commit") -> Write:
    return Write(call, call + 0.1, F, kind, request_id, "ok", revision)


def change(row: Row) -> route_pb2.RouteChange:
    made = route_pb2.RouteChange(revision=row.revision, key=key(row.key))
    made.kind = route_pb2.ChangeKind.Value(f"CHANGE_KIND_{row.kind}")
    if row.of_traffic and row.after:
        made.traffic_after.targets.extend(targets(*(each["weight"] for each in row.after["targets"])))
        made.traffic_after.slices.extend(traffic_pb2.TrafficSlice(version=v, size=n) for v, n in row.after["slices"])
    elif row.after:
        made.after.url, made.after.active = row.after["url"], row.after["active"]
    return made


def commit_reply(rows: list[Row], steps: list[pb.CommittedMutation]) -> pb.CommitResponse:
    last = rows[-1].revision
    return pb.CommitResponse(mutations=steps, changes=map(change, rows), change_set_id=rows[0].revision, revision=last)


def revert_reply(rows: list[Row]) -> pb.RevertResponse:
    return pb.RevertResponse(changes=map(change, rows), change_set_id=rows[0].revision, revision=rows[-1].revision)


def test_a_clean_history_has_no_violation() -> None:
    assert Case().found() == set()


def lose_a_part(case: Case) -> None:
    """Only the first row of a set was committed."""
    del case.rows[-1]


def count_wrong(case: Case) -> None:
    for row in case.rows[3:5]:
        row.change_set_size = 3


def mix(case: Case) -> None:
    case.rows[4].request_id = "s9"


def forget_a_change(case: Case) -> None:
    case.rows[5].before = case.rows[0].after


def name_an_absent_version(case: Case) -> None:
    after = traffic(4000, 0, 6000)
    case.rows[4].after = {**after, "revision": 5}


def lose_weight(case: Case) -> None:
    case.rows[4].after = {**traffic(4000, 5000), "revision": 5}


def keep_other_slices(case: Case) -> None:
    case.rows[4].after = {**traffic(4000, 6000), "slices": [["v0", 6000], ["v1", 4000]], "revision": 5}


def answer_another_id(case: Case) -> None:
    assert case.change.reply
    case.change.reply.change_set_id = 5


def answer_fewer_changes(case: Case) -> None:
    assert case.change.reply
    del case.change.reply.changes[1]


def answer_another_url(case: Case) -> None:
    assert case.change.reply
    case.change.reply.changes[0].after.url = "u7"


def answer_other_steps(case: Case) -> None:
    assert isinstance(case.change.reply, pb.CommitResponse)
    case.change.reply.mutations[0].change_count = 2


def answer_an_early_token(case: Case) -> None:
    assert case.change.reply
    case.change.reply.revision = 4


def say_nothing(case: Case) -> None:
    case.change.write.kind = "confirmed"
    case.change.reply = pb.CommitResponse(revision=3)


def write_another_url(case: Case) -> None:
    case.change.mutations[0].update.url = "u8"


def divide_otherwise(case: Case) -> None:
    case.change.mutations[2].set_traffic.targets[0].weight = 5000


def restore_another_url(case: Case) -> None:
    case.rows[5].after = {**route("u5"), "revision": 6}


def restore_other_labels(case: Case) -> None:
    case.rows[5].after = {**route("u0", team="a"), "revision": 6}


def restore_other_slices(case: Case) -> None:
    after = traffic(10_000, 0)
    case.rows[6].after = {**after, "fallbacks": ["v1"], "revision": 7}


def undo_what_came_since(case: Case) -> None:
    """A change between the change set and its revert."""
    begin, changed, back = case.rows[:3], case.rows[3:5], case.rows[5:]
    steps = [(row.key, row.kind, row.after) for row in back]
    case.rows = rows_of(
        ("s1", [(row.key, row.kind, row.after) for row in begin]),
        ("s2", [(row.key, row.kind, row.after) for row in changed]),
        ("w9", [(V0, "UPDATED", route("u4"))]),
        ("s3", steps),
    )
    case.revert.write.revision = 7
    case.revert.reply = revert_reply(case.rows[6:])
    case.nothing.write.revision = 8


def change_more_than_was(case: Case) -> None:
    case.rows = rows_of(
        ("s1", [(row.key, row.kind, row.after) for row in case.rows[:3]]),
        ("s2", [(row.key, row.kind, row.after) for row in case.rows[3:5]]),
        ("s3", [*((row.key, row.kind, row.after) for row in case.rows[5:]), (V1, "UPDATED", route("u6"))]),
    )
    case.revert.reply = revert_reply(case.rows[5:])


def find_what_is_not(case: Case) -> None:
    case.nothing.write.revision = 5


def refuse_without_a_cause(case: Case) -> None:
    case.refused.write.call = case.refused.write.ret = 0.5


def refuse_by_force(case: Case) -> None:
    case.refused.force = True


@pytest.mark.parametrize(
    ("plant", "promise", "rule"),
    [
        (lose_a_part, 15, "a change set that is not whole"),
        (count_wrong, 15, "a change set that is not whole"),
        (mix, 15, "a change set that is not whole"),
        (forget_a_change, 15, "a change that does not begin where the one before ended"),
        (name_an_absent_version, 16, "traffic that cannot be"),
        (lose_weight, 16, "traffic that cannot be"),
        (keep_other_slices, 16, "traffic that cannot be"),
        (answer_another_id, 2, "the answer is not that of the change set"),
        (answer_fewer_changes, 2, "the answer is not that of the change set"),
        (answer_another_url, 2, "the answer is not that of the change set"),
        (answer_other_steps, 2, "the answer is not that of the change set"),
        (answer_an_early_token, 2, "the answer is not that of the change set"),
        (say_nothing, 2, "the answer is not that of the change set"),
        (write_another_url, 15, "a mutation did something else"),
        (divide_otherwise, 15, "a mutation did something else"),
        (restore_another_url, 15, "a revert did not bring back what was"),
        (restore_other_labels, 15, "a revert did not bring back what was"),
        (restore_other_slices, 15, "a revert did not bring back what was"),
        (undo_what_came_since, 15, "a revert undid what was changed since"),
        (change_more_than_was, 15, "a revert changed what was not to be undone"),
        (find_what_is_not, 15, "a revert did not bring back what was"),
        (refuse_without_a_cause, 15, "a revert was refused without a cause"),
        (refuse_by_force, 15, "a revert was refused without a cause"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[Case], None], promise: int, rule: str) -> None:
    case = Case()
    plant(case)
    assert (promise, rule) in case.found()


def test_what_was_made_and_deleted_again_since_leaves_nothing_to_lose() -> None:
    begin, gone = (V0, "CREATED", route("u0")), (V0, "DELETED", None)
    rows = rows_of(("s1", [begin]), ("s2", [gone]), ("w3", [begin]), ("w4", [gone]), ("s3", [begin]))
    revert = SetWrite(write("s3", 3.0, 5, "revert"), target=Target(EPOCH, 2, 2), reply=revert_reply(rows[4:]))
    model = Model(History(writes=[revert.write]), rows)
    assert list(check_sets([revert], [model])) == []


def test_with_force_what_came_since_may_be_undone() -> None:
    case = Case()
    undo_what_came_since(case)
    case.revert.force = True
    assert case.found() == set()
