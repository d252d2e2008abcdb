"""A bounded dict drops what was put in first, and only when it must."""

from pointsman_server.runtime.bounded_dict import put_bounded


def test_the_first_key_is_dropped_when_the_dict_is_full() -> None:
    table: dict[str, int] = {}
    for number, key in enumerate("abcd"):
        put_bounded(table, key, number, 3)
    assert table == {"b": 1, "c": 2, "d": 3}


def test_a_key_that_is_there_is_replaced_and_nothing_is_dropped() -> None:
    table = {"a": 1, "b": 2}
    put_bounded(table, "a", 3, 2)
    assert table == {"a": 3, "b": 2}
    put_bounded(table, "c", 4, 2)
    assert table == {"b": 2, "c": 4}
