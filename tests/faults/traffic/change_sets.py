"""Holds commits and reverts to the history: promises 1, 2 and 15."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from tests.faults.checking import Model, Violation
from tests.faults.history import Row, key_of, text_of_traffic
from tests.faults.traffic.families import Families
from tests.faults.traffic.records import SetWrite
from tests.faults.watchers import state_of_traffic

POINTS = 10_000


def check_sets(sets: Sequence[SetWrite], models: Sequence[Model]) -> Iterator[Violation]:
    """Hold every era to every rule, and what was refused to all of them."""
    for model in models:
        yield from sets_are_whole(model)
        yield from changes_follow_one_another(model)
        yield from traffic_is_valid(model)
        kept = {write.request_id: write.answer for write in model.history.writes}
        of_era = [each for each in sets if each.write.request_id in kept]
        answered = [each for each in of_era if kept[each.write.request_id] == "ok"]
        yield from answers_tell_the_rows(answered, model)
        yield from mutations_are_carried_out(answered, model)
        yield from reverts_restore(of_era, model)
    yield from refusals_have_a_cause(sets, models)


def sets_are_whole(model: Model) -> Iterator[Violation]:
    """Promise 15: the rows of a change set are consecutive, as many as each of them says, and of one request."""
    sets: dict[int, list[Row]] = defaultdict(list)
    for row in model.rows:
        sets[row.change_set_id].append(row)
    for number, rows in sets.items():
        size, revisions = len(rows), [row.revision for row in rows]
        told = {(row.change_set_size, row.change_set_end, row.request_id) for row in rows}
        if revisions != list(range(number, number + size)) or told != {(size, number + size - 1, rows[0].request_id)}:
            yield Violation(15, "a change set that is not whole", 0.0, f"{number}: {revisions[:10]}, {sorted(told)}")


def changes_follow_one_another(model: Model) -> Iterator[Violation]:
    """Promise 15: each change begins where the one before of its key ended."""
    last: dict[str, Row] = {}
    for row in sorted(model.rows, key=lambda row: row.revision):
        before = last.get(row.key)
        if content(row.before, row) != content(before.after if before else None, row):
            yield Violation(15, "a change that does not begin where the one before ended", 0.0, f"{before}; {row}")
        last[row.key] = row


def traffic_is_valid(model: Model) -> Iterator[Violation]:
    """Promise 16: after each change set, weights add up, slices have the weights, and each version has a route."""
    families = Families(model.rows)
    for row in model.rows:
        family = families.at(row.family, row.revision)
        if not family.traffic or families.torn(row.family, row.revision):
            continue
        weights = {each["version"]: each["weight"] for each in family.traffic["targets"]}
        sizes = dict.fromkeys(weights, 0)
        for version, size in family.traffic["slices"]:
            sizes[version] = sizes.get(version, 0) + size
        named = {*weights, *family.traffic["fallbacks"]}
        if sum(weights.values()) != POINTS or sizes != weights or not named <= family.routes.keys():
            yield Violation(16, "traffic that cannot be", 0.0, f"{family.traffic}, routes {sorted(family.routes)}")


def answers_tell_the_rows(answered: Sequence[SetWrite], model: Model) -> Iterator[Violation]:
    """Promise 2: the answer has the id, the changes and the steps that the history has."""
    for each in answered:
        rows, reply = model.requests.get(each.write.request_id, []), each.reply
        assert reply is not None
        said = [_said(change) for change in reply.changes]
        made = [_made(row) for row in rows]
        number = rows[0].revision if rows else 0
        complete = len(said) + reply.omitted_change_count == len(made) and said == made[: len(said)]
        steps = not isinstance(reply, pb.CommitResponse) or _steps_cover(reply, rows, len(each.mutations))
        late = bool(rows) and reply.revision < rows[-1].revision
        if reply.change_set_id != number or not complete or not steps or late:
            text = f"{each.write}: {reply.change_set_id}, {reply.revision}, {said[:5]} instead of {number}, {made[:5]}"
            yield Violation(2, "the answer is not that of the change set", each.write.ret, text)


def _said(change: route_pb2.RouteChange) -> tuple[int, str, str, object]:
    after: object = None
    if change.HasField("after"):
        after = (change.after.url, change.after.active, dict(change.after.labels))
    elif change.HasField("traffic_after"):
        after = state_of_traffic(change.traffic_after)[2]
    kind = route_pb2.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_")
    return change.revision, kind, key_of(change.key), after


def _made(row: Row) -> tuple[int, str, str, object]:
    return row.revision, row.kind, row.key, content(row.after, row)


def content(value: Mapping[str, Any] | None, row: Row) -> object:
    """Return what a change back must bring back; None for nothing."""
    if value is None:
        return None
    return text_of_traffic(value) if row.of_traffic else (value["url"], value["active"], dict(value["labels"]))


def _steps_cover(reply: pb.CommitResponse, rows: Sequence[Row], count: int) -> bool:
    if len(reply.mutations) != count:
        return False
    following = rows[0].revision if rows else 0
    for step in reply.mutations:
        if step.first_revision != (following if step.change_count else 0):
            return False
        following += step.change_count
    return not rows or following == rows[-1].revision + 1


def mutations_are_carried_out(answered: Sequence[SetWrite], model: Model) -> Iterator[Violation]:
    """Promise 15: each mutation of a commit did what it says."""
    for each in answered:
        rows = {row.revision: row for row in model.requests.get(each.write.request_id, ())}
        steps = each.reply.mutations if isinstance(each.reply, pb.CommitResponse) else ()
        for mutation, step in zip(each.mutations, steps, strict=False):
            numbers = range(step.first_revision, step.first_revision + step.change_count)
            if not _did(mutation, [rows[number] for number in numbers if number in rows]):
                yield Violation(15, "a mutation did something else", each.write.ret, f"{mutation}: {step}")


def _did(mutation: pb.Mutation, rows: Sequence[Row]) -> bool:
    kind = mutation.WhichOneof("mutation") or ""
    request = getattr(mutation, kind)
    if kind in ("set_traffic", "delete_traffic"):
        return all(_divided(kind, request, row) for row in rows)
    key = key_of(request.key)
    own, others = [row for row in rows if row.key == key], [row for row in rows if row.key != key]
    if kind in ("create", "delete") and len(own) != 1:
        return False
    exclusive = kind == "activate" and request.exclusive
    siblings = all(row.kind == "DEACTIVATED" and row.family == key.rpartition("/")[0] for row in others)
    return (not others or (exclusive and siblings)) and all(_became(kind, request, row) for row in own)


def _divided(kind: str, request: Any, row: Row) -> bool:
    if kind == "delete_traffic":
        return row.kind == "TRAFFIC_DELETED"
    wanted = [(each.version, each.weight) for each in request.targets]
    made = [(each["version"], each["weight"]) for each in (row.after or {}).get("targets", ())]
    return made == wanted and list((row.after or {})["fallbacks"]) == list(request.fallbacks)


def _became(kind: str, request: Any, row: Row) -> bool:
    if kind == "delete":
        return row.kind == "DELETED"
    if kind == "create":
        return (row.kind, row.url, row.active) == (
            "CREATED",
            request.url,
            not request.HasField("active") or request.active,
        )
    if kind == "update":
        return row.kind in ("CREATED", "UPDATED") and row.url == request.url
    return row.active == (kind == "activate")


def reverts_restore(sets: Sequence[SetWrite], model: Model) -> Iterator[Violation]:
    """Promise 15: a revert that is in the history brought back exactly what was, and nothing else.

    Without force it undid nothing that was changed since. One that changed nothing found everything as it was.
    """
    revisions = {row.revision: row for row in model.rows}
    for each in sets:
        rows = model.requests.get(each.write.request_id, [])
        if each.target is None or not (rows or each.write.kind == "confirmed"):
            continue
        undone = [row for number in range(each.target.first, each.target.last + 1) if (row := revisions.get(number))]
        before, end = _bounds_of(each, rows)
        if before < each.target.last:
            # Of another era: there it was answered, and a restore took it back.
            continue
        ranges = _by_key(undone)
        for key, (first, last) in ranges.items():
            was, now = model.at(key, first.revision - 1), model.at(key, end)
            wanted = content(was.after if was else None, first)
            found = content(now.after if now else None, first)
            since = model.at(key, before)
            if wanted != found:
                yield Violation(15, "a revert did not bring back what was", each.write.ret, f"{each}: {was}; {now}")
            elif not each.force and _is_later(last, since) and wanted != content(since.after if since else None, first):
                yield Violation(15, "a revert undid what was changed since", each.write.ret, f"{each}: {last}; {since}")
        if strange := [row for row in rows if row.key not in ranges]:
            yield Violation(15, "a revert changed what was not to be undone", each.write.ret, f"{each}: {strange}")


def _is_later(last: Row, since: Row | None) -> bool:
    """Say whether there was something to lose: not where nothing was left, and there is nothing again."""
    return since is not last and not (since and last.after is None and since.after is None)


def _bounds_of(each: SetWrite, rows: Sequence[Row]) -> tuple[int, int]:
    """Return the revisions right before a revert and right after it."""
    return (rows[0].revision - 1, rows[-1].revision) if rows else (each.write.revision, each.write.revision)


def _by_key(rows: Sequence[Row]) -> dict[str, tuple[Row, Row]]:
    """Return the first and the last row of each key."""
    found: dict[str, tuple[Row, Row]] = {}
    for row in rows:
        first, _ = found.get(row.key, (row, row))
        found[row.key] = (first, row)
    return found


def refusals_have_a_cause(sets: Sequence[SetWrite], models: Sequence[Model]) -> Iterator[Violation]:
    """Promise 15: where something was changed since, something was."""
    answered = [each for each in sets if each.write.answer == "refused"]
    refused = [each for each in answered if each.target and each.reason == "CHANGED_SINCE"]
    caused: set[str] = set()
    for model in models:
        by_revision = {row.revision: row for row in model.rows}
        by_key: dict[str, list[Row]] = defaultdict(list)
        for row in model.rows:
            by_key[row.key].append(row)
        caused |= {each.write.request_id for each in refused if _changed_since(each, model, by_revision, by_key)}
    for each in refused:
        if each.force or each.write.request_id not in caused:
            yield Violation(15, "a revert was refused without a cause", each.write.ret, str(each))


def _changed_since(
    each: SetWrite, model: Model, by_revision: Mapping[int, Row], by_key: Mapping[str, Sequence[Row]]
) -> bool:
    """Say whether one of the keys was changed later, by a call that began before the refusal."""
    assert each.target
    numbers = range(each.target.first, each.target.last + 1)
    last = {row.key: row.revision for number in numbers if (row := by_revision.get(number))}
    return any(
        row.revision > revision
        and ((made := model.applied.get(row.revision)) is None or made.write.call < each.write.ret)
        for key, revision in last.items()
        for row in by_key[key]
    )
