"""The commands of xds are there."""

import pytest

from pointsman.cli.commands.xds.group import XdsCommands
from tests.unit.client.conftest import Run


@pytest.mark.parametrize("command", XdsCommands.homes)
def test_every_command_has_help_with_the_exit_codes(run: Run, command: str) -> None:
    done = run("xds", command, "--help")
    assert done.exit_code == 0
    assert "Exit codes" in done.stdout
