"""Logs each change once it is committed, by one line. The record of all changes is the audit log."""

import logging
from collections.abc import Iterable, Sequence

from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.ports.store import Intent
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# Documented in docs/operating.md: people search and count by it.
EVENT = "route changed"


def log_changes(made: Iterable[tuple[Change, Intent]]) -> None:
    """Write a line for each change."""
    if log.is_enabled_for(logging.INFO):
        for change, intent in made:
            log.info(EVENT, revision=change.revision, kind=str(change.kind), key=str(change.key), **_facts(intent))


def log_import(keys: Sequence[RouteKey], revisions: Sequence[int], first: int, intent: Intent) -> None:
    """Write a line for each route that an import changed: those whose revision is ``first`` or higher."""
    if log.is_enabled_for(logging.INFO):
        facts = _facts(intent)
        for revision, key in sorted(zip(revisions, keys, strict=True)):
            if revision >= first:
                log.info(EVENT, revision=revision, kind="IMPORTED", key=str(key), **facts)


def _facts(intent: Intent) -> dict[str, object]:
    facts: dict[str, object] = {"actor": intent.actor, "reason": intent.reason}
    if intent.call_id:
        facts["request_id"] = intent.call_id
    if intent.request_id:
        facts["mutation_request_id"] = intent.request_id
    if trace_id := intent.traceparent[3:35]:
        facts["trace_id"] = trace_id
    return facts
