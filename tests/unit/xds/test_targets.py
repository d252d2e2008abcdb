"""What routes and families lead to."""

from hypothesis import given, settings

from pointsman.selection import POINTS
from pointsman_server.domain.traffic import Division
from pointsman_server.domain.traffic import Target as Weight
from pointsman_server.xds.targets import Slot, Target, Verdict, Version, of_family, of_route
from tests.support.xds_targets import division_of, divisions, versions

V1, V2, V3 = (Version(f"v{number}", f"http://v{number}", active=True) for number in (1, 2, 3))


def off(version: Version) -> Version:
    return Version(version.version, version.url, active=False)


def slot(version: Version, weight: int = POINTS) -> Slot:
    return Slot(version.version, version.url, weight)


def live(*slots: Slot, fallbacks: tuple[Slot, ...] = ()) -> Target:
    return Target(Verdict.LIVE, slots, fallbacks)


def test_an_active_route_is_live() -> None:
    assert of_route(V1) == live(slot(V1))


def test_a_route_that_is_not_active_keeps_its_url() -> None:
    assert of_route(off(V1)) == Target(Verdict.NOT_LIVE, (slot(V1),))


def test_a_route_that_is_not_there_is_not_live() -> None:
    assert of_route(None) == Target(Verdict.NOT_LIVE)


def test_a_family_leads_to_its_only_active_version() -> None:
    assert of_family([off(V1), V2], None) == live(slot(V2))


def test_a_family_of_two_active_versions_and_no_traffic_is_not_live() -> None:
    target = of_family([V1, V2], None)

    assert target == Target(Verdict.NOT_LIVE)
    assert "v1, v2" in target.reason


def test_a_reason_names_a_few_versions_only() -> None:
    many = [Version(f"v{number}", "http://a", active=True) for number in range(9)]

    assert "(v0, v1, v2, v3, v4 and 4 more)" in of_family(many, None).reason


def test_a_family_without_active_versions_is_not_live() -> None:
    assert of_family([off(V1)], None) == of_family([], None) == Target(Verdict.NOT_LIVE)
    assert of_family([off(V1)], None).reason != of_family([], None).reason


def test_the_heaviest_target_is_first() -> None:
    # A canary that is named first would have every call, between new URLs and new weights.
    target = of_family([V1, V2, V3], division_of({"v1": 1_000, "v2": 6_000, "v3": 3_000}))

    assert target == live(slot(V2, 6_000), slot(V3, 3_000), slot(V1, 1_000))


def test_targets_of_equal_weight_keep_their_order() -> None:
    assert of_family([V1, V2], division_of({"v2": 5_000, "v1": 5_000})) == live(slot(V2, 5_000), slot(V1, 5_000))


def test_what_is_not_active_has_no_weight_and_the_url_of_what_is() -> None:
    target = of_family([off(V1), V2, V3], division_of({"v1": 5_000, "v2": 2_000, "v3": 3_000}))

    assert target == live(slot(V3, 3_000), slot(V2, 2_000), slot(V3, 0))


def test_a_target_of_weight_0_has_a_slot_already() -> None:
    assert of_family([V1, V2], division_of({"v1": 10_000, "v2": 0})) == live(slot(V1), slot(V1, 0))


def test_a_version_that_the_traffic_does_not_name_is_not_led_to() -> None:
    assert of_family([V1, V2], division_of({"v1": 10_000})) == live(slot(V1))


def test_without_an_active_version_that_has_a_weight_the_first_active_fallback_takes_all() -> None:
    division = division_of({"v1": 10_000, "v2": 0}, "v3", "v2")

    assert of_family([off(V1), V2, V3], division) == live(slot(V3), fallbacks=(slot(V2),))
    assert of_family([off(V1), V2, off(V3)], division) == live(slot(V2))
    assert of_family([off(V1), off(V2), off(V3)], division) == Target(Verdict.NOT_LIVE)


def test_active_fallbacks_that_have_no_slot_are_tried_in_order() -> None:
    division = division_of({"v1": 10_000}, "v3", "v1", "v2")

    assert of_family([V1, V2, V3], division) == live(slot(V1), fallbacks=(slot(V3), slot(V2)))


def test_reasons_do_not_make_targets_differ() -> None:
    assert Target(Verdict.NOT_LIVE, reason="a") == Target(Verdict.NOT_LIVE, reason="b")


@given(known=versions(), division=divisions())
@settings(deadline=None)
def test_every_live_target_leads_to_what_select_may_choose(known: list[Version], division: Division | None) -> None:
    target = of_family(known, division)
    active = {version.version: version.url for version in known if version.active}

    assert target.reason
    assert (target.verdict is Verdict.LIVE) == bool(target.slots)
    for each in (*target.slots, *target.fallbacks):
        assert active[each.version] == each.url
    if target.slots:
        assert target.slots[0].weight > 0
        assert all(each.weight or each.url == target.slots[0].url for each in target.slots)
    if target.slots and division:
        weights = {weight.version: weight.weight for weight in division.targets if weight.version in active}
        chosen = {each.version: each.weight for each in target.slots if each.weight}
        assert chosen == {version: weight for version, weight in weights.items() if weight} or not any(weights.values())


def test_weights_are_named() -> None:
    target = of_family([V1, V2], Division((Weight("v1", 9_000), Weight("v2", 1_000))))

    assert target.reason.endswith("v1 9000, v2 1000")
