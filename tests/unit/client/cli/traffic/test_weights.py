"""traffic.weights: percent as people write it, and what a shift makes of the others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.cli.traffic.weights import (
    InvalidWeights,
    check_sum,
    division_text,
    percent_text,
    scaled,
    shifted,
    weight_of,
    weights_of,
    weights_text,
    without,
)

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10_000), min_size=1)


@pytest.mark.parametrize(
    ("text", "points"), [("90", 9000), ("0", 0), ("100", 10_000), ("12.5", 1250), ("0.01", 1), ("33.33", 3333)]
)
def test_percent_have_up_to_two_decimals(text: str, points: int) -> None:
    assert weight_of(text) == points
    assert weight_of(percent_text(points).removesuffix("%")) == points


@pytest.mark.parametrize("text", ["", "-1", "+1", "101", "100.01", "0.001", "1e1", ".5", "5.", "9,5", "\u0665", "1 "])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(InvalidWeights, match="must be percent from 0 to 100"):
        weight_of(text)


def test_pairs_are_read_in_their_order_with_or_without_the_sign() -> None:
    assert list(weights_of(["v2=10%", "v1=90"]).items()) == [("v2", 1000), ("v1", 9000)]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["v1"], "'v1' must be VERSION=PERCENT"),
        (["v1=1", "v1=2"], "v1 is given twice"),
        (["-v=1"], "the version '-v' must be 1 to 63"),
        (["=1"], "the version '' must be"),
        (["v1="], "'' must be percent"),
    ],
)
def test_pairs_that_cannot_be_are_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(InvalidWeights, match=message):
        weights_of(pairs)


def test_the_sum_must_be_100() -> None:
    check_sum({"v1": 9000, "v2": 1000})
    with pytest.raises(InvalidWeights, match="v1=90% v2=5% add up to 95%, and must add up to 100%"):
        check_sum({"v1": 9000, "v2": 500})


def test_weights_read_as_they_are_written() -> None:
    text = weights_text({"v1": 8750, "v2": 1250})
    assert text == "v1=87.5% v2=12.5%"
    assert weights_of(text.split()) == {"v1": 8750, "v2": 1250}
    assert division_text({"v1": 10_000}, ["v0", "v00"]) == "v1=100%; fallback v0, v00"
    assert division_text({}, []) == "(not set)"


class TestShift:
    def test_versions_that_are_not_given_leave_if_the_others_have_everything(self) -> None:
        before = {"v0": 500, "v1": 9500}
        assert shifted(before, {"v1": 9000, "v2": 1000}) == {"v1": 9000, "v2": 1000}

    def test_they_divide_the_rest_as_before(self) -> None:
        before = {"v1": 6000, "v2": 3000, "v3": 1000}
        assert shifted(before, {"v3": 1900}) == {"v1": 5400, "v2": 2700, "v3": 1900}
        assert shifted({"v1": 10_000}, {"v2": 1000}) == {"v1": 9000, "v2": 1000}

    def test_a_version_that_is_given_0_stays(self) -> None:
        assert shifted({"v1": 9000, "v2": 1000}, {"v1": 10_000, "v2": 0}) == {"v1": 10_000, "v2": 0}
        assert shifted({"v1": 9000, "v2": 1000}, {"v2": 0}) == {"v1": 10_000, "v2": 0}

    def test_more_than_everything_is_refused(self) -> None:
        with pytest.raises(InvalidWeights, match="v1=90% v2=20% add up to 110%, more than 100%"):
            shifted({"v1": 10_000}, {"v1": 9000, "v2": 2000})

    @pytest.mark.parametrize("before", [{}, {"v1": 10_000}, {"v1": 10_000, "v3": 0}])
    def test_less_is_refused_if_nobody_can_take_the_rest(self, before: dict[str, int]) -> None:
        with pytest.raises(InvalidWeights, match="v1=90% add up to 90%, and no other version has a weight"):
            shifted(before, {"v1": 9000})

    @given(WEIGHTS, WEIGHTS)
    def test_what_comes_out_adds_up_and_has_what_was_asked_for(
        self, before: dict[str, int], wanted: dict[str, int]
    ) -> None:
        try:
            after = shifted(before, wanted)
        except InvalidWeights:
            return
        check_sum(after)
        assert after.items() >= wanted.items()


class TestWithout:
    def test_the_others_share_what_it_had(self) -> None:
        assert without({"v1": 5000, "v2": 3000, "v3": 2000}, "v1") == {"v2": 6000, "v3": 4000}
        assert without({"v1": 5000, "v2": 5000, "v3": 0}, "v1") == {"v2": 10_000, "v3": 0}

    @pytest.mark.parametrize("before", [{"v1": 10_000}, {"v1": 10_000, "v2": 0}])
    def test_nobody_is_left_if_no_other_has_a_weight(self, before: dict[str, int]) -> None:
        assert without(before, "v1") == {}


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10_000), min_size=1), st.integers(0, 10_000))
def test_scaled_weights_add_up_and_are_off_by_less_than_a_point(weights: dict[str, int], total: int) -> None:
    before = sum(weights.values())
    after = scaled(weights, total)
    assert sum(after.values()) == total
    assert all(abs(after[name] - points * total / before) < 1 for name, points in weights.items())
