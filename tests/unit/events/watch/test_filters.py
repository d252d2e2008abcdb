"""Filters, and the index that finds those of a key."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.routes import RouteKey
from pointsman_server.events.watch.filters import Filter, FilterIndex

FEW = st.sampled_from(["", "a", "b"])
FILTERS = st.builds(Filter, FEW, FEW, FEW, st.booleans())


def test_an_empty_part_matches_all() -> None:
    key = RouteKey("a", "b", "c", "v1")
    for tenant, service, env in product(("", "a", "x"), ("", "b", "x"), ("", "c", "x")):
        assert Filter(tenant, service, env).matches(key) is ("x" not in (tenant, service, env))


@given(st.lists(st.tuples(st.booleans(), FILTERS)))
def test_the_index_finds_what_matches_one_by_one(steps: list[tuple[bool, Filter]]) -> None:
    index, used = FilterIndex(), set[Filter]()
    for add, wanted in steps:
        (index.add if add else index.discard)(wanted)
        (used.add if add else used.discard)(wanted)
    for parts in product("ab", repeat=3):
        for version in ("v1", ""):
            key = RouteKey(*parts, version)
            assert sorted(index.matching(key)) == sorted(wanted for wanted in used if wanted.matches(key))


def test_traffic_matches_those_that_want_it() -> None:
    route, traffic = RouteKey("a", "b", "c", "v1"), RouteKey("a", "b", "c", "")
    assert [Filter("a", traffic=wanted).matches(key) for wanted in (False, True) for key in (route, traffic)] == [
        True,
        False,
        True,
        True,
    ]
    assert not Filter("x", traffic=True).matches(traffic)


def test_the_routes_of_a_filter_are_those_of_the_same_one_without_traffic() -> None:
    assert Filter("a", "b", "c", traffic=True).of_routes == Filter("a", "b", "c").of_routes == Filter("a", "b", "c")


def test_a_copy_does_not_change() -> None:
    index, wanted, later = FilterIndex(), Filter("a"), Filter("", "b")
    index.add(wanted)
    same = index.copy()
    index.discard(wanted)
    index.add(later)
    key = RouteKey("a", "b", "c", "v1")
    assert list(same.matching(key)) == [wanted]
    assert list(index.matching(key)) == [later]
