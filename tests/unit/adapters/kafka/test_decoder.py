from dataclasses import replace

import pytest

from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.audit.hash_chain import canonical
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey
from tests.support.changes import make_change


def test_a_change_is_decoded_as_it_was_published() -> None:
    assert change_from_bytes(canonical(make_change(7))) == make_change(7)


def test_an_epoch_that_postgresql_rejects_is_no_change() -> None:
    # The audit consumer would retry it without end.
    with pytest.raises(NotAChange):
        change_from_bytes(canonical(replace(make_change(7), epoch="e\0")))


CHANGE = make_change(7)
assert CHANGE.after is not None
OTHER = replace(CHANGE.after, key=RouteKey("acme", "pay", "prod", "v2"))


@pytest.mark.parametrize(
    "change",
    [
        replace(CHANGE, after=OTHER),
        replace(CHANGE, before=OTHER),
        replace(CHANGE, after=replace(CHANGE.after, revision=8)),
        replace(CHANGE, after=None),
        replace(CHANGE, kind=ChangeKind.DELETED),
    ],
    ids=["after of another key", "before of another key", "another revision", "no route", "a route after a deletion"],
)
def test_a_change_with_routes_of_another_key_or_revision_is_no_change(change: Change) -> None:
    # Caches would answer it under the key of the change.
    with pytest.raises(NotAChange, match="without a valid"):
        change_from_bytes(canonical(change))
