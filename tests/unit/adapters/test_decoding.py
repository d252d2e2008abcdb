from dataclasses import replace

import pytest

from pointsman_server.adapters.kafka.decoding import NotAChange, change_from_bytes
from pointsman_server.auditing import canonical
from tests.support.changes import make_change


def test_a_change_comes_back_as_it_was() -> None:
    assert change_from_bytes(canonical(make_change(7))) == make_change(7)


def test_an_epoch_that_no_database_takes_is_none() -> None:
    # It would stop the audit log for ever.
    with pytest.raises(NotAChange):
        change_from_bytes(canonical(replace(make_change(7), epoch="e\0")))
