"""What is wrong with a mutation, whatever the store holds."""

import pytest

from pointsman_server.domain.errors import InvalidField
from pointsman_server.domain.routes import RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.writes.checks import check, violations_of
from pointsman_server.writes.mutations import Activate, Command, Create, Delete, SetTraffic, Update

KEY = RouteKey("team-a", "payments", "prod", "v1")


def traffic(*targets: tuple[str, int], fallbacks: tuple[str, ...] = ()) -> SetTraffic:
    return SetTraffic(KEY.family_key, Division(tuple(Target(*target) for target in targets), fallbacks))


@pytest.mark.parametrize(
    "command",
    [
        Create(KEY, "https://payments.internal", {}),
        Update(KEY, labels={}),
        Activate(KEY),
        Delete(KEY),
        traffic(("v1", 9_999), ("v2", 1), ("v3", 0), fallbacks=("v3", "v1")),
    ],
)
def test_what_is_well_formed_passes(command: Command) -> None:
    check(command)


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (Create(KEY, "no url", {}), {"url"}),
        (Update(KEY, "no url"), {"url"}),
        (traffic(("v1", 9_999)), {"targets"}),
        (traffic(("v1", 10_000), ("v2", 1)), {"targets"}),
        (traffic(("v1", 1), ("v2", 2), ("v1", 3)), {"targets", "targets[2].version"}),
        (traffic(("v1", 10_000), fallbacks=("v2", "v3", "v3", "v2")), {"fallbacks[2]", "fallbacks[3]"}),
    ],
)
def test_each_malformed_field_is_named(command: Command, fields: set[str]) -> None:
    assert {violation.field for violation in violations_of(command)} == fields
    with pytest.raises(InvalidField):
        check(command)


def test_the_texts_say_what_is_wrong_and_what_would_be_right() -> None:
    texts = [each.description for each in violations_of(traffic(("v1", 4_000), ("v1", 50_000)))]
    assert texts == ["is that of targets[0].version again", "must have weights that add up to 10,000, not to 54,000"]
