"""audit.backfill: what is missing from the audit log is copied from the history, and nothing else."""

import asyncio
from collections.abc import Sequence

import pytest

from pointsman_server.audit import backfill
from pointsman_server.audit.backfill import AuditBackfill
from pointsman_server.domain.errors import PointsmanError, StoreUnavailable
from pointsman_server.domain.routes import Change
from pointsman_server.ports.audit_log import Span
from pointsman_server.ports.store import ChangeQuery
from tests.support.changes import make_change
from tests.support.fakes import MemoryStore


class MemoryAuditLog:
    """``ports.AuditLog`` in memory. ``loses`` are revisions that it does not take."""

    def __init__(self) -> None:
        self.rows: set[tuple[str, int]] = set()
        self.loses: set[int] = set()
        self.appended: list[list[int]] = []
        self.extended = asyncio.Event()

    async def append(self, changes: Sequence[Change]) -> None:
        self.appended.append([change.revision for change in changes])
        self.rows |= {(change.epoch, change.revision) for change in changes if change.revision not in self.loses}

    async def extend(self, span: Span) -> int:
        head = span.first - 1
        while (span.epoch, head + 1) in self.rows:
            head += 1
        if head == span.last:
            self.extended.set()
        return head


class History(MemoryStore):
    """A store that keeps the queries of its history."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[ChangeQuery] = []

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        self.queries.append(query)
        return await super().list_changes(query)


class Scene:
    """A history of epoch e1 with ``count`` changes, all of them published, and an audit log that is empty."""

    def __init__(self, count: int) -> None:
        self.log = MemoryAuditLog()
        self.store = History()
        self.store.changes = [make_change(revision) for revision in range(1, count + 1)]
        self.listed = [Span("e1", 1, count)]
        self.relay_revision = count
        self.failure: PointsmanError | None = None
        self.backfill = AuditBackfill(self.log, self, self.store, self.published, interval=0)

    async def spans(self) -> list[Span]:
        return self.listed

    async def published(self) -> int:
        if self.failure:
            raise self.failure
        return self.relay_revision

    async def consume(self, *revisions: int) -> None:
        """Deliver these from Kafka."""
        await self.log.append([change for change in self.store.changes if change.revision in revisions])
        self.log.appended.clear()


async def test_nothing_is_copied_before_the_head_has_stood_still_for_a_round() -> None:
    scene = Scene(5)
    for delivered in ([1], [2, 4], [3]):
        await scene.consume(*delivered)
        await scene.backfill.round()
    assert scene.log.appended == []
    assert scene.backfill.chained == 4


async def test_what_stays_missing_is_copied_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(5)
    await scene.consume(1, 2)
    await scene.backfill.round()
    assert (scene.log.appended, scene.backfill.chained) == ([], 2)
    await scene.backfill.round()
    assert (scene.log.appended, scene.backfill.chained) == ([[3, 4, 5]], 5)
    assert "the audit log lacks revision 3 of epoch e1: copying from the history" in caplog.text
    await scene.backfill.round()
    assert len(scene.log.appended) == 1


async def test_what_is_not_published_is_not_missing() -> None:
    scene = Scene(5)
    scene.relay_revision = 3
    for _ in range(2):
        await scene.backfill.round()
    assert (scene.log.appended, scene.backfill.chained) == ([[1, 2, 3]], 3)


async def test_it_is_copied_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "BATCH", 2)
    scene = Scene(5)
    for _ in range(2):
        await scene.backfill.round()
    assert scene.log.appended == [[1, 2], [3, 4], [5]]
    assert [(query.after_revision, query.before_revision, query.limit) for query in scene.store.queries] == [
        (0, 6, 2),
        (2, 6, 2),
        (4, 6, 2),
    ]


async def test_each_epoch_is_complete_by_itself_and_the_newest_one_shows() -> None:
    scene = Scene(5)
    scene.store.changes += [make_change(revision, epoch="e2") for revision in (6, 7)]
    scene.listed.append(Span("e2", 6, 7))
    scene.relay_revision = 7
    await scene.consume(1, 2, 3, 4, 5)
    await scene.backfill.round()
    assert (scene.log.appended, scene.backfill.chained) == ([], 5)
    await scene.backfill.round()
    assert (scene.log.appended, scene.backfill.chained) == ([[6, 7]], 7)


async def test_a_row_that_does_not_arrive_ends_the_round_and_the_next_one_tries_again() -> None:
    scene = Scene(3)
    scene.log.loses = {2}
    await scene.backfill.round()
    await scene.backfill.round()
    assert (scene.log.appended, scene.backfill.chained) == ([[1, 2, 3], [2, 3]], 1)
    scene.log.loses.clear()
    await scene.backfill.round()
    assert scene.backfill.chained == 3


async def test_without_a_history_nothing_is_chained() -> None:
    scene = Scene(0)
    scene.listed.clear()
    await scene.backfill.round()
    assert scene.backfill.chained == 0


async def test_running_goes_on_after_an_outage_of_the_store() -> None:
    scene = Scene(2)
    scene.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await scene.backfill.round()
    task = asyncio.create_task(scene.backfill.run())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    scene.failure = None
    async with asyncio.timeout(10):
        await scene.log.extended.wait()
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), scene.log.appended) == (True, [[1, 2]])
