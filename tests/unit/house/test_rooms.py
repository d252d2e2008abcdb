"""The tree is the table of contents: small modules in small folders, and tests where one looks for them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVER = ROOT / "server" / "pointsman_server"
CLIENT = ROOT / "clients" / "python" / "pointsman"
UNIT = ROOT / "tests" / "unit"

MOST_LINES = 400
MOST_FILES = 15

# Folders whose modules are tested elsewhere, on the real thing or as a process: each with the place of their tests.
TESTED_ELSEWHERE: Mapping[str, str] = {
    "adapters/jwt": "tests/integration/test_issuer_keys.py",
    "adapters/kafka": "tests/integration",
    "adapters/postgres": "tests/contract",
    "adapters/redis": "tests/contract",
    "cli": "tests/e2e",
    "embedded": "tests/integration/test_embedded.py",
    # Protocols and values without rules of their own.
    "ports": "tests/contract",
}
# The same for single modules.
MODULES_TESTED_ELSEWHERE: Mapping[str, str] = {
    "app/application.py": "tests/e2e/test_serve.py",
    # Protocols.
    "xds/clients/caller.py": "tests/integration/xds/test_access.py",
    "app/xds/door.py": "tests/integration/xds/test_door.py",
    "app/xds/services.py": "tests/integration/xds/test_clients.py",
    "config/names.py": "tests/unit/config/test_environment.py",
    "domain/access_errors.py": "tests/unit/rpc/test_statuses.py",
    "rpc/transport/limits.py": "tests/unit/app/test_listening.py",
}


def modules(root: Path) -> Iterator[Path]:
    """Return the modules under ``root`` that people wrote."""
    for path in sorted(root.rglob("*.py")):
        if "v1" not in path.parts and "migrations" not in path.parts:
            yield path


def folders(root: Path) -> Iterator[Path]:
    yield from sorted({path.parent for path in modules(root)})


def test_no_module_stands_outside_a_room() -> None:
    assert {path.name for path in SERVER.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("root", [SERVER, CLIENT], ids=["server", "client"])
def test_modules_are_short(root: Path) -> None:
    lines = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in modules(root)}

    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize("root", [SERVER, CLIENT], ids=["server", "client"])
def test_folders_are_small(root: Path) -> None:
    files = {str(folder.relative_to(root)): len(list(folder.glob("*.py"))) for folder in folders(root)}

    assert {name: count for name, count in files.items() if count > MOST_FILES} == {}


def test_no_module_is_called_by_what_it_is_not() -> None:
    names = {path.stem for root in (SERVER, CLIENT) for path in modules(root)}

    assert names & {"utils", "util", "helpers", "misc", "common_utils"} == set()


def test_every_module_has_its_test() -> None:
    missing = {
        str(name)
        for path in modules(SERVER)
        if path.name not in {"__init__.py", "__main__.py"}
        and (name := path.relative_to(SERVER))
        and not (UNIT / name.parent / f"test_{name.name}").exists()
        and not any(str(name).startswith(f"{folder}/") for folder in TESTED_ELSEWHERE)
    }

    assert missing == set(MODULES_TESTED_ELSEWHERE)


def test_the_tests_named_elsewhere_are_there() -> None:
    for place in {*TESTED_ELSEWHERE.values(), *MODULES_TESTED_ELSEWHERE.values()}:
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize(("tests", "root"), [(UNIT, SERVER), (UNIT / "client", CLIENT)], ids=["server", "client"])
def test_every_test_of_a_room_is_about_a_module_of_it(tests: Path, root: Path) -> None:
    rooms = {path.relative_to(root).parts[0] for path in folders(root) if path != root}
    stray = {
        str(path.relative_to(tests))
        for room in rooms
        for path in (tests / room).rglob("test_*.py")
        if not is_about_a_module(root / path.relative_to(tests).parent / path.name.removeprefix("test_"))
    }

    assert stray == set()


def is_about_a_module(path: Path) -> bool:
    return path.exists() or (path.name == "main.py" and path.with_name("__main__.py").exists())
