"""``python -m tests.mutants``: change the server in one small way after another, and see whether a test notices.

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
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.plugin import FAILURES, STATS
from tests.mutants.results import PACKAGE, VERDICTS, Outcome, Verdict, read_explanations, read_mutants
from tests.support.engines import LENT, lent_engines

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".mutants"
SURVIVORS = Path(__file__).with_name("survivors.txt")
TARGETS = ("reads", "writes", "events", "epochs", "adapters/redis")
# All of them for every target: the tests of one room run the code of another.
SUITES = (*(f"tests/unit/{target}" for target in TARGETS), "tests/contract", "tests/races")
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
do_not_mutate_patterns = ['\blogger\.\w+\(']
pytest_add_cli_args = ["-p", "tests.mutants.plugin", "-p", "no:xdist", "-p", "no:hypothesispytest"]
pytest_add_cli_args_test_selection = {tests}
"""


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    help_targets = f"folders or modules of the server, as reads or reads/resolver.py (default: {', '.join(TARGETS)})"
    parser.add_argument("targets", nargs="*", default=[], metavar="TARGET", help=help_targets)
    parser.add_argument("--fresh", action="store_true", help="test again what earlier runs killed")
    chosen = parser.parse_args(arguments)
    chosen.targets = [target.rstrip("/") for target in chosen.targets] or list(TARGETS)
    for target in chosen.targets:
        if not (ROOT / "server" / PACKAGE / target).exists():
            parser.error(f"the server has no {target}")
    return chosen


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
    _copy(ROOT / "server" / PACKAGE, work / "src" / PACKAGE)
    _copy(ROOT / "tests", work / "tests")
    settings = (ROOT / "pyproject.toml").read_text() + CONFIG.format(
        only=json.dumps([pattern for target in targets for pattern in _patterns(target)]),
        tests=json.dumps(SUITES),
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


def _patterns(target: str) -> Iterator[str]:
    yield f"src/{PACKAGE}/{target}" if target.endswith(".py") else f"src/{PACKAGE}/{target}/*"


def report(work: Path) -> int:
    """Print the table and the survivors; 1 when too few were killed."""
    mutants = tuple(read_mutants(work / "mutants" / "src" / PACKAGE))
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
