"""Changes for tests."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pointsman_server.domain.routes import Change, ChangeKind, Draft, Route, RouteKey, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target, allot
from pointsman_server.ports.store import (
    Intent,
    LockedState,
    MutationScope,
    RouteStore,
    RouteTransaction,
    StoredOutcome,
)
from pointsman_server.writes.ledger import Ledger

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def make_change(
    revision: int,
    service: str = "pay",
    kind: ChangeKind = ChangeKind.UPDATED,
    *,
    epoch: str = "e1",
    trace: str = "",
    tenant: str = "acme",
    url: str = "",
) -> Change:
    """Make the change of a revision; the same arguments give an equal one."""
    key = RouteKey(tenant, service, "prod", "v1")
    when = BEGINNING + timedelta(seconds=revision)
    url = url or f"https://{service}.internal/{revision}"
    route = Route(key, url, True, {"n": str(revision)}, revision, BEGINNING, when)
    after = None if kind is ChangeKind.DELETED else route
    return Change(
        revision, f"event-{revision}", kind, key, None, after, "ann", "why", f"r{revision}", when, epoch, trace
    )


def make_traffic(revision: int, service: str = "pay", *, tenant: str = "acme") -> Traffic:
    """Make the traffic of a revision, all of it to ``v1``; the same arguments give an equal one."""
    key = RouteKey(tenant, service, "prod", "")
    when = BEGINNING + timedelta(seconds=revision)
    return Traffic(key, Division((Target("v1", 10_000),)), (Slice("v1", 10_000),), revision, BEGINNING, when)


def make_traffic_change(
    revision: int, service: str = "pay", kind: ChangeKind = ChangeKind.TRAFFIC_SET, *, epoch: str = "e1"
) -> Change:
    """Make the change of traffic of a revision; the same arguments give an equal one."""
    traffic = make_traffic(revision, service)
    return Change(
        revision,
        f"event-{revision}",
        kind,
        traffic.key,
        None,
        None,
        "ann",
        "why",
        f"r{revision}",
        traffic.update_time,
        epoch,
        traffic_before=traffic if kind is ChangeKind.TRAFFIC_DELETED else None,
        traffic_after=traffic if kind is ChangeKind.TRAFFIC_SET else None,
    )


async def commit(store: RouteStore, drafts: Sequence[Draft], intent: Intent) -> list[Change]:
    """Commit ``drafts`` in one transaction."""
    async with store.begin() as transaction:
        return await record(transaction, drafts, intent)


async def record(transaction: RouteTransaction, drafts: Sequence[Draft], intent: Intent) -> list[Change]:
    """Lock, and record ``drafts``."""
    ledger = Ledger(await transaction.lock([MutationScope(draft.key, intent) for draft in drafts]))
    changes = ledger.apply(drafts, intent)
    await transaction.record(changes, [])
    return changes


async def commit_set(
    store: RouteStore, drafts: Sequence[Draft], intent: Intent, remembered: Sequence[StoredOutcome] = ()
) -> list[Change]:
    """Commit ``drafts``, of routes and traffic, as one change set."""
    async with store.begin() as transaction:
        changes = make_set(
            await transaction.lock([MutationScope(draft.key, intent) for draft in drafts]), drafts, intent
        )
        await transaction.record(changes, remembered)
        return changes


def make_set(locked: LockedState, drafts: Sequence[Draft], intent: Intent) -> list[Change]:
    """Make each draft the change of the next revision; a plain twin of the ledger."""
    first, size = locked.clock.revision + 1, len(drafts)
    return [_of_set(draft, revision, first, size, locked, intent) for revision, draft in enumerate(drafts, first)]


def _of_set(draft: Draft, revision: int, first: int, size: int, locked: LockedState, intent: Intent) -> Change:
    now, gone = locked.moment, draft.kind in {ChangeKind.DELETED, ChangeKind.TRAFFIC_DELETED}
    after: Route | None = None
    traffic: Traffic | None = None
    if draft.division and not gone:
        had = draft.traffic_before
        slices = allot(draft.division.targets, had.slices if had else ())
        traffic = Traffic(draft.key, draft.division, slices, revision, had.create_time if had else now, now)
    elif not gone:
        born = draft.before.create_time if draft.before else now
        after = Route(draft.key, draft.url, draft.active, dict(draft.labels), revision, born, now)
    return Change(
        revision,
        str(uuid.uuid4()),
        draft.kind,
        draft.key,
        draft.before,
        after,
        intent.actor,
        intent.reason,
        intent.request_id,
        now,
        locked.clock.epoch,
        change_set_end=first + size - 1,
        change_set_id=first,
        change_set_size=size,
        traffic_before=draft.traffic_before,
        traffic_after=traffic,
    )
