"""cli: the entry point, and what it says when the extra is not installed."""

import subprocess
import sys
from textwrap import dedent

import pytest


@pytest.mark.parametrize("module", ["typer", "rich", "yaml"])
def test_without_the_extra_it_says_what_to_install(module: str) -> None:
    program = dedent(f"""
        import sys
        sys.modules[{module!r}] = None
        from pointsman.cli import main
        main()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "pip install 'pointsman[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pointsman.cli", "version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "pointsman")
