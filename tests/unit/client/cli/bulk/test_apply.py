"""bulk.apply: change sets one after another, and what an error says of those that were made."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from pointsman import AsyncClient, FieldViolation, PointsmanError, RouteKey
from pointsman.change_sets import ChangeSetResult
from pointsman.cli.bulk.apply import Applying, perform
from pointsman.cli.bulk.change_set import change_sets
from pointsman.cli.bulk.difference import Difference, Wanted

TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Recorder:
    """A client that makes change sets, and fails the one of that number."""

    def __init__(self, fails: int = -1, violations: tuple[FieldViolation, ...] = ()) -> None:
        self.calls: list[dict[str, Any]] = []
        self._fails = fails
        self._violations = violations

    async def commit(self, mutations: Any, **options: Any) -> ChangeSetResult:
        self.calls.append({"mutations": len(mutations), **options})
        if len(self.calls) - 1 == self._fails:
            raise PointsmanError("refused", violations=self._violations)
        return ChangeSetResult(100 * len(self.calls), 100 * len(self.calls) + 99, ())


def work(count: int, *, dry_run: bool = False) -> Applying:
    found = [
        Difference(RouteKey("a", f"s{number // 1000}", "c", f"v{number}"), None, Wanted("https://x", True, {}), number)
        for number in range(count)
    ]
    return Applying("x.yaml", change_sets(found), "why", dry_run)


async def perform_by(client: Recorder, work: Applying) -> list[ChangeSetResult]:
    return await perform(cast("AsyncClient", client), work)


async def test_each_is_a_call_with_an_id_of_its_own() -> None:
    client = Recorder()
    results = await perform_by(client, work(2500))
    assert [each.change_set_id for each in results] == [100, 200, 300]
    assert [call["mutations"] for call in client.calls] == [1000, 1000, 500]
    assert len({call["request_id"] for call in client.calls}) == 3
    assert {(call["reason"], call["dry_run"]) for call in client.calls} == {("why", False)}


async def test_after_one_that_fails_none_begins_and_it_says_which_are_made() -> None:
    client = Recorder(1, (FieldViolation("mutations[7]", "ROUTE_EXISTS: route exists"),))
    with pytest.raises(PointsmanError) as raised:
        await perform_by(client, work(2500))
    assert len(client.calls) == 2
    assert raised.value.message == "x.yaml:1007: a/s1/c/v1007: route exists (ROUTE_EXISTS)"
    assert raised.value.__notes__ == ["1 of 3 change sets are made (100 to 100), nothing of this one is: run it again"]


async def test_of_a_dry_run_nothing_is_made() -> None:
    with pytest.raises(PointsmanError) as raised:
        await perform_by(Recorder(1), work(2500, dry_run=True))
    assert raised.value.__notes__ == ["nothing is changed"]
