"""group: a group of commands is loaded as a command is."""

from tests.unit.client.conftest import Run


def test_lists_its_commands(run: Run) -> None:
    done = run("traffic", "--help")
    assert done.exit_code == 0
    assert all(f" {name} " in done.stdout for name in ("get", "list"))


def test_a_name_that_is_nearly_one_is_suggested(run: Run) -> None:
    done = run("traffic", "gte", "a/b/c")
    assert done.exit_code == 2
    assert "Did you mean 'get'?" in done.stderr
