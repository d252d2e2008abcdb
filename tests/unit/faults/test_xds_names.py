"""What the change sets of the names of xDS clients lead to."""

import random

from pointsman_server.xds.names import key_of
from tests.faults.traffic.clients import family_of
from tests.faults.xds import names

URLS = {name: f"http://127.0.0.1:{number}" for number, name in enumerate((*names.BACKENDS, *names.AFTER_FAULTS), 1)}


def test_every_name_is_one_of_a_route_or_a_family() -> None:
    assert None not in [key_of(name) for name in names.NAMES]
    assert not {names.UNKNOWN} & {*names.FAMILIES, *names.ROUTES}


def test_a_fault_is_followed_by_a_backend_that_no_other_change_set_names() -> None:
    dice = random.Random(1)
    elsewhere = [each for _ in range(300) for each in names.change_set(dice, URLS)] + names.beginning(URLS)
    used = {getattr(getattr(each, each.WhichOneof("mutation") or ""), "url", "") for each in elsewhere}
    for backend in names.AFTER_FAULTS:
        after = names.after_a_fault(URLS, backend)
        assert {each.update.url for each in after if each.HasField("update")} == {URLS[backend]}
        assert URLS[backend] not in used
        assert {family_of(each) for each in after} == {f"reach/{service}/prod" for service in names.SERVICES}


def test_steady_families_are_never_left_without_an_active_version() -> None:
    dice = random.Random(2)
    for each in [each for _ in range(300) for each in names.change_set(dice, URLS)]:
        if each.HasField("deactivate"):
            assert each.deactivate.key.service in names.SOMETIMES
