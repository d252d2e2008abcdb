"""Any file of routes gives entries that the server accepts, too, or problems that say what is wrong."""

from tests.fuzz.conftest import Fuzz


def test_any_bytes_are_read_or_refused(fuzz: Fuzz) -> None:
    fuzz("file_bytes")


def test_any_row_is_the_same_in_every_format(fuzz: Fuzz) -> None:
    fuzz("file_rows")
