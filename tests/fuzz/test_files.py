"""Whatever a file of routes holds: entries that the server takes too, or problems that say what is wrong."""

from tests.fuzz.conftest import Fuzz


def test_any_bytes_are_read_or_refused(fuzz: Fuzz) -> None:
    fuzz("file_bytes")


def test_any_row_is_the_same_in_every_format(fuzz: Fuzz) -> None:
    fuzz("file_rows")
