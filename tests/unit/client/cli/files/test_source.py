"""cli.inputs: a file is UTF-8 text, with or without a byte order mark."""

from pathlib import Path

import pytest

from pointsman.cli.files.problems import InvalidFile
from pointsman.cli.files.source import read_text


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "routes.csv"
    file.write_bytes(b"\xef\xbb\xbfkey,url")
    assert read_text(str(file)) == "key,url"


def test_other_bytes_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "routes.csv"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidFile, match="UTF-8"):
        read_text(str(file))


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="directory"):
        read_text(str(tmp_path))
