"""xds.clients.text: texts of clients, for people."""

import pytest

from pointsman_server.xds.clients.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "plain"), ("ümläut", "ümläut"), ("a\x1b[31mb", "a [31mb"), ("a\nb\r\tc\x00", "a b  c ")],
)
def test_what_a_terminal_could_take_for_a_command_is_a_space(text: str, shown: str) -> None:
    assert printable(text) == shown
