"""The names and versions of one type."""

import pytest

from pointsman_server.xds.subscription import NOT_SENT, Subscription
from tests.support.xds_world import CDS, EDS, RDS

NEW_STYLE = "xdstp://x/envoy.config.listener.v3.Listener/a"


@pytest.fixture
def subscription() -> Subscription:
    subscription = Subscription(EDS)
    for number, name in enumerate(("a", "a~~1", NEW_STYLE, "b"), 1):
        subscription.want(name)
        subscription.put(name, number)
    subscription.dirty.clear()
    return subscription


def test_names_are_found_by_their_root(subscription: Subscription) -> None:
    assert [*subscription.of_root("a")] == ["a", "a~~1", NEW_STYLE]
    assert [*subscription.of_root("b")] == ["b"]
    assert [*subscription.of_root("c")] == []
    subscription.drop("a")
    subscription.drop(NEW_STYLE)
    assert [*subscription.of_root("a")] == ["a~~1"]


def test_nothing_is_kept_of_names_that_are_dropped(subscription: Subscription) -> None:
    subscription.sent("1", ["a", "b"])
    subscription.refuse("no")
    for name in tuple(subscription.versions):
        subscription.want(name)
        subscription.leaving[name] = None
        subscription.drop(name)
    assert subscription == Subscription(EDS, nonce="1", refused={})
    assert subscription.settled


def test_the_version_is_that_of_the_set_and_not_of_how_it_came_to_be(subscription: Subscription) -> None:
    assert subscription.version == 1 ^ 2 ^ 3 ^ 4
    subscription.put("a", 9)
    subscription.want("b")
    subscription.drop("a~~1")
    assert subscription.version == 9 ^ 3
    assert subscription.versions["b"] == NOT_SENT
    assert [*subscription.dirty] == ["b"]


def test_a_refusal_is_of_what_the_response_changed(subscription: Subscription) -> None:
    subscription.sent("1", ["a", "b"])
    subscription.drop("b")
    subscription.refuse("no")
    assert subscription.refused == {"a": "no"}
    subscription.sent("2", ["a~~1"])
    subscription.acknowledge()
    assert not subscription.settled
    subscription.sent("3", ["a"])
    subscription.acknowledge()
    assert subscription.settled


def test_a_refusal_of_nothing_that_is_wanted_is_none() -> None:
    subscription = Subscription(RDS)
    subscription.sent("1", ["gone"])
    subscription.refuse("no")
    assert subscription.settled


def test_a_response_that_has_everything_ends_all_refusals() -> None:
    subscription = Subscription(CDS)
    for name in ("a", "b"):
        subscription.want(name)
    subscription.dirty.clear()
    subscription.sent("1", ["a"])
    subscription.refuse("no")
    subscription.sent("2", ["b"])
    subscription.acknowledge()
    assert subscription.settled
