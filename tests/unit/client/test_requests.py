"""requests: what is unset stays unset on the wire."""

from collections.abc import Callable

import pytest

from pointsman import Consistency, InvalidArgument
from pointsman import requests as build
from pointsman.memory import Floor

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
    "make",
    [
        lambda: build.create(KEY, "https://x/\udcff", None, True, "", ""),
        lambda: build.create(KEY, "https://x", {"a": "\ud800"}, True, "", ""),
        lambda: build.list_routes("\udcff", "", "", None, 0),
        lambda: build.resolve(KEY, Floor(2**63), Consistency.MINIMIZE_LATENCY),
    ],
)
def test_what_protobuf_cannot_hold_is_an_invalid_argument(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.reason == "INVALID_FIELD"
