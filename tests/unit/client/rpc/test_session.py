"""session: the deadline, the token and the memory of one client."""

import pytest

from pointsman.connection.bearer import Bearer
from pointsman.keys import RouteKey
from pointsman.memory import Floor
from pointsman.rpc.session import Session

KEY = RouteKey.parse("a/b/c/d")


def session(timeout: float = 5.0) -> Session:
    return Session(timeout, Bearer(), max_attempts=4)


def test_a_countdown_begins_at_the_timeout_of_the_call_or_else_of_the_client() -> None:
    assert 4 < session().countdown(None)() <= 5
    assert 1 < session().countdown(2.0)() <= 2


def test_a_countdown_never_reaches_zero() -> None:
    assert session().countdown(1e-9)() > 0


def test_a_client_with_a_bad_timeout_is_not_made() -> None:
    with pytest.raises(ValueError, match="timeout"):
        session(0)


def test_what_the_caller_asks_for_is_sent_as_it_is() -> None:
    ours = session()
    ours.memory.wrote(7, began="")
    assert ours.floor(KEY, None, "") == Floor(7, "")
    assert ours.floor(KEY, 3, "e-1") == Floor(3, "e-1")
    assert ours.floor_of_all(0, "") == Floor(0, "")


def test_an_epoch_alone_says_nothing() -> None:
    with pytest.raises(ValueError, match="give both"):
        session().floor(KEY, None, "e-1")
