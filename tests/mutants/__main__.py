"""``python -m tests.mutants``: change the code in one small way after another, and see whether a test notices.

mutmut makes the mutants in a copy of the tree, ``.mutants/``, and tests each in a process of its own by the tests that
run the changed function. PostgreSQL and Redis run once for all of them. Module level, decorated functions, Lua and
log lines are not mutated. What was killed stays so while its function does not change; ``--fresh`` begins anew.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.plugin import FAILURES, STATS
from tests.mutants.results import SERVER, VERDICTS, Outcome, Verdict, read_explanations, read_mutants
from tests.support.engines import LENT, lent_engines

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".mutants"
SURVIVORS = Path(__file__).with_name("survivors.txt")
CLIENT = "pointsman"
PACKAGES = {SERVER: ROOT / "server" / SERVER, CLIENT: ROOT / "clients" / "python" / CLIENT}
# Rooms whose code runs in each other's tests, the contracts and the races: they are tested by all of them.
READS_AND_WRITES = ("reads", "writes", "events", "epochs", "adapters/redis")
SUITES = {
    **dict.fromkeys(
        READS_AND_WRITES, (*(f"tests/unit/{room}" for room in READS_AND_WRITES), "tests/contract", "tests/races")
    ),
    "xds": ("tests/unit/xds", "tests/integration/xds/test_session_model.py"),
    f"{CLIENT}/channels": ("tests/unit/client/channels",),
    f"{CLIENT}/xds": ("tests/unit/client/xds",),
}
CHILDREN = 2
WANTED_PERCENT = 95.0

CONFIG = r"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = {only}
process_isolation = "forkserver"
timeout_constant = 5.0
timeout_multiplier = 4.0
use_git_change_detection = false
on_dependency_change = "ignore"
do_not_mutate_patterns = ['\blog(ger)?\.\w+\(']
pytest_add_cli_args = ["-p", "tests.mutants.plugin", "-p", "no:xdist", "-p", "no:hypothesispytest"]
pytest_add_cli_args_test_selection = {tests}
"""


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    help_targets = f"folders or modules in them, as reads or reads/resolver.py (default: {', '.join(SUITES)})"
    parser.add_argument("targets", nargs="*", default=[], metavar="TARGET", help=help_targets)
    parser.add_argument("--fresh", action="store_true", help="test again what earlier runs killed")
    chosen = parser.parse_args(arguments)
    chosen.targets = [target.rstrip("/") for target in chosen.targets] or list(SUITES)
    for target in chosen.targets:
        if _room(target) is None or not (PACKAGES[_package(target)] / _inside(target)).exists():
            parser.error(f"{target} is neither one of these folders nor in one")
    return chosen


def _room(target: str) -> str | None:
    return next((room for room in SUITES if f"{target}/".startswith(f"{room}/")), None)


def _package(target: str) -> str:
    return CLIENT if target.startswith(f"{CLIENT}/") else SERVER


def _inside(target: str) -> str:
    return target.removeprefix(f"{CLIENT}/")


def _suites(targets: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(suite for target in targets for suite in SUITES[_room(target) or target]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run mutmut and report; 1 when fewer than WANTED_PERCENT were killed, 2 when tests fail without mutants."""
    chosen = options(arguments)
    work = WORK / "-".join(target.replace("/", ".") for target in chosen.targets)
    if chosen.fresh:
        shutil.rmtree(work, ignore_errors=True)
    stage(work, chosen.targets)
    with tempfile.TemporaryDirectory(prefix="engines-") as directory, lent_engines(Path(directory), CHILDREN + 1):
        command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(CHILDREN)]
        environment = os.environ | {LENT: directory, "PYTHONDONTWRITEBYTECODE": ""}
        with (work / "output.txt").open("wb") as log:
            # Its progress line is for a terminal.
            output = None if sys.stdout.isatty() else log
            done = subprocess.run(
                command, cwd=work, env=environment, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
    if done.returncode != 0:
        failures = work / "mutants" / FAILURES
        sys.stderr.write(failures.read_text() if failures.exists() else "mutmut failed\n")
        return 2
    return report(work)


def stage(work: Path, targets: Sequence[str]) -> None:
    """Copy what a run needs to ``work``, and forget the results of all but the killed."""
    work.mkdir(parents=True, exist_ok=True)
    for package in {_package(target) for target in targets}:
        _copy(PACKAGES[package], work / "src" / package)
    _copy(ROOT / "tests", work / "tests")
    settings = (ROOT / "pyproject.toml").read_text() + CONFIG.format(
        only=json.dumps([_pattern(target) for target in targets]),
        tests=json.dumps(_suites(targets)),
    )
    tomllib.loads(settings)
    (work / "pyproject.toml").write_text(settings)
    for kept in (work / "mutants" / name for name in ("tests", STATS, FAILURES)):
        shutil.rmtree(kept) if kept.is_dir() else kept.unlink(missing_ok=True)
    for meta in (work / "mutants").rglob("*.py.meta"):
        _forget_survivors(meta, work)


def _copy(source: Path, target: Path) -> None:
    """Mirror a directory: files that did not change keep their times, by which mutmut knows them."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    if target.exists():
        for path in sorted(target.rglob("*"), reverse=True):
            if not (source / path.relative_to(target)).exists() or "__pycache__" in path.parts:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)


def _forget_survivors(meta: Path, work: Path) -> None:
    source = work / meta.relative_to(work / "mutants").with_suffix("")
    if not source.exists():
        meta.unlink()
        return
    content = json.loads(meta.read_text())
    codes = content["exit_code_by_key"]
    content["exit_code_by_key"] = {
        key: code if VERDICTS.get(code) is Verdict.KILLED else None for key, code in codes.items()
    }
    meta.write_text(json.dumps(content))


def _pattern(target: str) -> str:
    path = f"src/{_package(target)}/{_inside(target)}"
    return path if path.endswith(".py") else f"{path}/*"


def report(work: Path) -> int:
    """Print the table and the survivors; 1 when too few were killed."""
    mutants = tuple(read_mutants(work / "mutants" / "src"))
    explanations = read_explanations(SURVIVORS.read_text())
    outcome = Outcome(mutants, explanations)
    print("\n".join(("", *outcome.table())))
    survivors = outcome.survivors()
    unexplained = [mutant for mutant in survivors if str(mutant) not in explanations]
    print(f"\n{len(survivors)} survived, {len(unexplained)} of them without a reason in {SURVIVORS.relative_to(ROOT)}:")
    print("\n".join(outcome.listing()))
    if stale := outcome.stale():
        print(f"\nno survivors any more, to be deleted from {SURVIVORS.relative_to(ROOT)}:", *stale, sep="\n")
    if outcome.killed() < WANTED_PERCENT:
        print(
            f"\n{outcome.killed():.1f} % of the mutants were killed, and {WANTED_PERCENT:g} % must be", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
