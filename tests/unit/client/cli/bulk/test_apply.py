"""cli.performing: in which order differences are removed, and what is under way at once."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from pointsman import AsyncClient, ImportResult, Route, RouteKey, chunks
from pointsman.chunks import Chunk
from pointsman.cli.bulk.apply import perform
from pointsman.cli.bulk.difference import Difference, Wanted

TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Recorder:
    """A client whose calls take some time; ``calls`` has each one, and what was under way when it began."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.under_way = 0

    async def import_chunk(self, chunk: Chunk) -> ImportResult:
        routes = chunk.request.routes
        leaving = any(route.HasField("active") and not route.active for route in routes)
        await self._called("create" if not routes[0].expected_revision else "leave" if leaving else "stay")
        return ImportResult()

    async def delete(self, key: RouteKey, **_: Any) -> int:
        await self._called("delete")
        return 1

    async def _called(self, name: str) -> None:
        self.calls.append((name, self.under_way))
        self.under_way += 1
        for _ in range(20):
            await asyncio.sleep(0)
        self.under_way -= 1


def some(kind: str, count: int, before: bool | None, after: bool | None) -> list[Difference]:
    found = []
    for number in range(count):
        key = RouteKey("a", kind, "c", f"v{number}")
        route = None if before is None else Route(key, "https://x", before, {}, 1, TIME, TIME)
        found.append(Difference(key, route, None if after is None else Wanted("https://y", after, {})))
    return found


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MOST_ROUTES", 10)


async def test_what_goes_out_of_service_waits_for_all_that_takes_over_and_deletions_for_everything() -> None:
    found = [
        *some("gone", 3, True, None),
        *some("leaving", 35, True, False),
        *some("staying", 45, False, True),
        *some("new", 25, None, True),
    ]
    client = Recorder()
    await perform(cast("AsyncClient", client), found, "")
    # In the first call that takes something out of service are the last ones that take over.
    assert [name for name, _ in client.calls] == ["create"] * 3 + ["stay"] * 4 + ["leave"] * 4 + ["delete"] * 3
    alone = [under_way for name, under_way in client.calls if name == "leave"]
    assert alone == [0] * 4
    first = dict(reversed(client.calls))
    assert first == {"create": 0, "stay": 0, "leave": 0, "delete": 0}
    assert max(under_way for _, under_way in client.calls) > 0
