"""session: the deadline, the token and the memory of one client."""

import pytest

from pointsman.keys import RouteKey
from pointsman.memory import Floor
from pointsman.session import Session

KEY = RouteKey.parse("a/b/c/d")


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


def test_what_the_caller_asks_for_is_sent_as_it_is() -> None:
    session = Session(5.0, None)
    session.memory.wrote(7, began="")
    assert session.floor(KEY, None, "") == Floor(7, "")
    assert session.floor(KEY, 3, "e-1") == Floor(3, "e-1")
    assert session.floor_of_all(0, "") == Floor(0, "")


def test_an_epoch_alone_says_nothing() -> None:
    with pytest.raises(ValueError, match="give both"):
        Session(5.0, None).floor(KEY, None, "e-1")
