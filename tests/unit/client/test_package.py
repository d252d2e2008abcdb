"""The package: light to import, complete to use."""

import subprocess
import sys

import pytest

import pointsman


@pytest.mark.parametrize("name", pointsman.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pointsman, name).__name__ == name


@pytest.mark.parametrize("name", ["aio.channel", "xds.configure"])
def test_what_the_pages_call_needs_no_further_import(name: str) -> None:
    program = f"import pointsman; pointsman.{name}"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert name.partition(".")[0] in dir(pointsman)


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = pointsman.nothing


def test_the_messages_alone_load_neither_client_nor_grpc() -> None:
    program = "import sys, pointsman.v1.route_pb2; sys.exit('grpc' in sys.modules or 'pointsman.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_client_loads_nothing_of_the_command_line() -> None:
    program = "import sys; from pointsman import Client; sys.exit(bool({'typer', 'rich', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
