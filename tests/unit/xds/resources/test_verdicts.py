"""Whether clients of a kind are let through."""

import pytest

from pointsman_server.xds.resources.verdicts import fallbacks_of, not_carried, unused_fallbacks, verdict_of
from pointsman_server.xds.targets import FORBIDDEN, NOT_A_NAME, UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import ClientKind

PATH = "http://payments.internal/api"
PLAIN = "http://payments.internal"
KAFKA = "kafka://payments.internal"


def live(*urls: str, weights: tuple[int, ...] = (9_000, 1_000), fallbacks: tuple[Slot, ...] = ()) -> Target:
    slots = tuple(Slot(f"v{number}", url, weights[number]) for number, url in enumerate(urls))
    return Target(Verdict.LIVE, slots, fallbacks)


@pytest.mark.parametrize("kind", ClientKind)
@pytest.mark.parametrize("target", [UNKNOWN, FORBIDDEN, NOT_A_NAME, Target(Verdict.NOT_LIVE, (Slot("v1", KAFKA),))])
def test_what_is_not_live_is_so_for_all(kind: ClientKind, target: Target) -> None:
    assert verdict_of(kind, target) is target.verdict


@pytest.mark.parametrize(
    ("target", "grpc", "envoy"),
    [
        (live(PLAIN), Verdict.LIVE, Verdict.LIVE),
        (live(PATH), Verdict.NOT_CARRIED, Verdict.LIVE),
        (live(KAFKA), Verdict.NOT_CARRIED, Verdict.NOT_CARRIED),
        # The share of the second would fail.
        (live(PLAIN, PATH), Verdict.NOT_CARRIED, Verdict.LIVE),
        (live(PLAIN, PATH, weights=(10_000, 0)), Verdict.LIVE, Verdict.LIVE),
        (live(PLAIN, fallbacks=(Slot("v9", PATH),)), Verdict.LIVE, Verdict.LIVE),
    ],
)
def test_urls_are_carried_or_not(target: Target, grpc: Verdict, envoy: Verdict) -> None:
    assert (verdict_of(ClientKind.GRPC, target), verdict_of(ClientKind.ENVOY, target)) == (grpc, envoy)


def test_slots_that_are_not_carried_are_named_with_a_reason() -> None:
    slots = [Slot("v1", PLAIN), Slot("v2", PATH)]

    ((slot, reason),) = not_carried(ClientKind.GRPC, slots)
    assert slot.version == "v2"
    assert "path" in reason
    assert not_carried(ClientKind.ENVOY, slots) == []


@pytest.mark.parametrize("kind", ClientKind)
def test_fallbacks_that_are_not_carried_are_not_used(kind: ClientKind) -> None:
    plain, kafka = Slot("v1", PLAIN), Slot("v2", KAFKA)
    target = live(PLAIN, fallbacks=(plain, kafka))

    assert fallbacks_of(kind, target) == [plain]
    ((slot, reason),) = unused_fallbacks(kind, target)
    assert slot == kafka
    assert "scheme" in reason


def test_envoy_takes_a_fallback_that_has_the_same_path_alone() -> None:
    # The path is of the slot that Envoy chooses, also when the host is that of a fallback.
    plain, same, other = Slot("v1", PLAIN), Slot("v2", f"{PATH}/"), Slot("v3", "http://other/api/v2")

    assert fallbacks_of(ClientKind.ENVOY, live(PATH, fallbacks=(plain, same, other))) == [same]
    assert fallbacks_of(ClientKind.ENVOY, live(PLAIN, fallbacks=(plain, same, other))) == [plain]
    assert fallbacks_of(ClientKind.ENVOY, live(PATH, PLAIN, fallbacks=(plain, same, other))) == []
    assert fallbacks_of(ClientKind.ENVOY, live(PATH, PLAIN, weights=(10_000, 0), fallbacks=(same,))) == [same]
    assert len(unused_fallbacks(ClientKind.ENVOY, live(PATH, fallbacks=(plain, same, other)))) == 2
