"""session: the deadline, the token and the memory of one client."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pointsman.session import OwnWrites, Session


def test_own_writes_keep_the_highest_revision_of_all_threads() -> None:
    own_writes = OwnWrites()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(own_writes.saw, [3, 900, 7, *range(500)]))
    assert own_writes.revision == 900


def test_a_call_has_its_own_timeout_or_that_of_the_client() -> None:
    session = Session(5.0, None)
    assert (session.timeout(None), session.timeout(2.0)) == (5.0, 2.0)


def test_a_countdown_never_reaches_zero() -> None:
    assert Session(5.0, None).countdown(1e-9)() > 0


def test_a_client_with_a_bad_timeout_is_not_made() -> None:
    with pytest.raises(ValueError, match="timeout"):
        Session(0, None)


def test_without_a_token_nothing_is_sent() -> None:
    assert Session(5.0, None).metadata() == ()
    assert Session(5.0, "t-1").metadata() == (("authorization", "Bearer t-1"),)
