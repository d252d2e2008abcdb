"""requests: what is unset stays unset on the wire."""

from collections.abc import Callable
from typing import cast

import pytest

from pointsman import Consistency, ImportedRoute, InvalidArgument, RouteKey, chunks
from pointsman.memory import Floor
from pointsman.rpc import requests as build

KEY = "a/b/c/d"


def test_update_tells_unset_from_empty() -> None:
    unset = build.update(KEY, "https://x", None, 0, False, "", "")
    empty = build.update(KEY, None, {}, 0, False, "", "")
    assert (unset.HasField("url"), unset.HasField("labels")) == (True, False)
    assert (empty.HasField("url"), empty.HasField("labels")) == (False, True)


def test_list_tells_any_from_inactive() -> None:
    assert not build.list_routes("", "", "", None, 0).HasField("active")
    assert build.list_routes("", "", "", False, 0).HasField("active")


def test_a_batch_with_a_malformed_key_is_not_sent_in_part() -> None:
    keys = [*[KEY] * 1000, "bad"]
    with pytest.raises(InvalidArgument):
        next(build.batch_resolve(keys, Floor(), Consistency.MINIMIZE_LATENCY))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: build.create(KEY, "https://x/\udcff", None, True, "", ""), "url"),
        (lambda: build.create(KEY, "https://x", {"a": "\ud800"}, True, "", ""), "labels"),
        (lambda: build.create(KEY, "https://x", {"\ud800": ""}, True, "", ""), "labels"),
        (lambda: build.update(KEY, None, {"a": "\ud800"}, 0, False, "", ""), "labels"),
        (lambda: build.delete(KEY, 0, "", "caf\udce9"), "reason"),
        (lambda: build.list_routes("\udcff", "", "", None, 0), "tenant"),
        (lambda: build.list_routes("", "", "", None, 2**31), "page_size"),
        (lambda: build.activate(KEY, 2**63, False, "", ""), "expected_revision"),
        (lambda: build.resolve(KEY, Floor(2**63), Consistency.MINIMIZE_LATENCY), "min_revision"),
        (lambda: build.resolve(KEY, Floor(1, "\udcff"), Consistency.MINIMIZE_LATENCY), "epoch"),
        (lambda: next(build.batch_resolve([KEY], Floor(2**63), Consistency.MINIMIZE_LATENCY)), "min_revision"),
        (lambda: build.resolve(KEY, Floor(), cast("Consistency", "soon")), "consistency"),
        (lambda: build.get(RouteKey("a", "b", "\udcff", "d")), "env"),
        (lambda: chunks.message_of(ImportedRoute(RouteKey("a", "b", "\udcff", "d"), "https://x")), "env"),
        (lambda: chunks.message_of(ImportedRoute(KEY, "https://x/\udcff")), "url"),
        (lambda: chunks.message_of(ImportedRoute(KEY, "https://x", {"a": "\udcff"})), "labels"),
        (lambda: chunks.message_of(ImportedRoute(KEY, "https://x", None, None, 2**63)), "expected_revision"),
    ],
)
def test_what_protobuf_cannot_hold_is_named_and_not_repeated(make: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.reason == "INVALID_FIELD"
    assert [violation.field for violation in caught.value.violations] == [field]
    assert field in caught.value.message
    assert not any(character in caught.value.message for character in "\ud800\udcff\udce9")
