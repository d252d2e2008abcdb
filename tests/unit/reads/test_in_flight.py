"""Reservations are in force until they are released, or their key is written."""

import pytest

from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.in_flight import Reservations

K1, K2 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2"))


@pytest.fixture
def reservations() -> Reservations:
    return Reservations()


def test_a_reservation_is_in_force_until_it_is_released(reservations: Reservations) -> None:
    one, other = reservations.reserve(K1, 1.0), reservations.reserve(K1, 2.0)
    assert (one.key, one.read_at, other.read_at) == (K1, 1.0, 2.0)
    assert one in reservations
    reservations.release(one)
    assert one not in reservations
    assert other in reservations
    reservations.release(other)
    assert len(reservations) == 0
    assert reservations._of_keys == {}


def test_a_write_revokes_every_reservation_of_its_key_and_no_other(reservations: Reservations) -> None:
    ours, more, others = reservations.reserve(K1, 1.0), reservations.reserve(K1, 1.0), reservations.reserve(K2, 1.0)
    reservations.revoke(K1)
    assert [reservation in reservations for reservation in (ours, more, others)] == [False, False, True]
    reservations.release(ours)
    assert len(reservations) == 1


def test_a_revoked_reservation_that_is_released_leaves_a_later_one_in_force(reservations: Reservations) -> None:
    old = reservations.reserve(K1, 1.0)
    reservations.revoke(K1)
    new = reservations.reserve(K1, 2.0)
    reservations.release(old)
    assert new in reservations
    assert old not in reservations


def test_a_key_without_reservations_may_be_revoked(reservations: Reservations) -> None:
    reservations.revoke(K1)
    assert len(reservations) == 0


def test_all_reservations_can_be_revoked(reservations: Reservations) -> None:
    one, other = reservations.reserve(K1, 1.0), reservations.reserve(K2, 1.0)
    reservations.revoke_all()
    assert one not in reservations
    assert other not in reservations
