"""The copy without remedies can be made, and is Python."""

import ast
from pathlib import Path

from tests.faults.remedies_off import PATCHES, SERVER, switch_off


def test_the_copy_differs_from_the_server_in_what_is_switched_off(tmp_path: Path) -> None:
    switch_off(tmp_path / "server")
    changed = {
        str(file.relative_to(SERVER / "pointsman_server"))
        for file in SERVER.rglob("*.py")
        if file.read_text() != (tmp_path / "server" / file.relative_to(SERVER)).read_text()
    }
    assert changed == {name for name, _, _ in PATCHES}
    for name in changed:
        ast.parse((tmp_path / "server/pointsman_server" / name).read_text())
