"""Runs targets, counts their inputs, and keeps what fails.

A target is a module of ``tests.fuzz.targets`` with a line in ``BUDGETS`` and a test of one line (``fuzz("its_name")``).
It has ``check(value)``, which raises AssertionError, or anything else, for a finding, and

- for bytes, which atheris (libFuzzer) mutates by the coverage they reach, a name that ends in ``_bytes``; ``SEEDS``,
  inputs to begin with, which are also the regression tests of what was found; ``MODULES``, packages whose coverage
  guides; and if wanted ``WORDS``, what to put in, ``LONGEST``, and ``mutate(data, size, seed)``, a mutator of its own;
- for structures, which hypothesis makes and shrinks: ``INPUTS``, a strategy.

A run with a fixed seed is the same every time. libFuzzer leaves the process by itself, so that every run of bytes is a
process of its own (``tests.fuzz.child``), bounded in memory and in time for each input.
"""

import importlib
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from pointsman_server.telemetry import logs
from tests.support.tools import require

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = ROOT / ".cache" / "fuzz" / "findings"
CORPUS = ROOT / ".cache" / "fuzz" / "corpus"

# How many inputs one run of the suite gives to each target. In all it is at least TOTAL.
TOTAL = 100_000
BUDGETS = {
    "api_key_bytes": 10_000,
    "bearer_token_bytes": 10_000,
    "cached_value_bytes": 15_000,
    "change_bytes": 20_000,
    "file_bytes": 20_000,
    "grant_bytes": 10_000,
    "issuer_keys_bytes": 10_000,
    "page_token_bytes": 20_000,
    "policy_bytes": 10_000,
    "request_bytes": 20_000,
    "rule_bytes": 40_000,
    "file_rows": 1_500,
    "metadata": 1_000,
    "redis_scripts": 500,
    "requests": 1_500,
}
SEED = 20_261_124
# Under this name a test reports how many inputs it ran: pytest's summary adds them up (tests/conftest.py).
PROPERTY = "fuzz_inputs"
INPUT_SECONDS = 30
PROCESS_SECONDS = 900
MEGABYTES = 1024
SHOWN_BYTES = 400

_EXECUTED = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")


class Finding(AssertionError):
    """An input that breaks what the target promises, and how to run it again."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How long to go on: for so many inputs, or for so many seconds; and from which seed."""

    inputs: int = 0
    seconds: float = 0.0
    seed: int = SEED


def target(name: str) -> Any:
    """Load the module of a target; a name with dots is that of a module elsewhere."""
    return importlib.import_module(name if "." in name else f"tests.fuzz.targets.{name}")


def takes_bytes(name: str) -> bool:
    """Say whether atheris runs the target; without loading it, so that it can be instrumented."""
    return name.endswith("_bytes")


def run(name: str, extent: Extent, corpus: Path | None = None, check: Callable[[Any], None] | None = None) -> int:
    """Run a target and return how many inputs it was given. Raises Finding, or what a structure led to.

    ``check`` stands in for that of the module, where one needs something that only a test has. ``corpus`` is a
    directory where inputs that reach something new are kept, and taken from.
    """
    if takes_bytes(name):
        require("atheris", find_spec("atheris"), "it has wheels for Linux alone")
        return _run_bytes(name, extent, corpus)
    return _run_structures(target(name), extent, check)


def _run_bytes(name: str, extent: Extent, corpus: Path | None) -> int:
    FINDINGS.mkdir(parents=True, exist_ok=True)
    prefix = FINDINGS / f"{name}-{os.getpid()}-"
    module = target(name)
    with tempfile.TemporaryDirectory(prefix="pointsman-fuzz-") as place:
        options = [*_limits(extent), f"-artifact_prefix={prefix}", *_inputs(module, Path(place), corpus)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.child", name, ",".join(module.MODULES), *options],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=extent.seconds + PROCESS_SECONDS,
            check=False,
        )
    executed = _EXECUTED.search(done.stdout)
    if done.returncode or not executed:
        raise Finding(_report(name, prefix, done))
    return int(executed[1])


def _limits(extent: Extent) -> list[str]:
    return [
        f"-seed={extent.seed % 2**31 or 1}",
        f"-runs={extent.inputs or -1}",
        f"-max_total_time={int(extent.seconds) or PROCESS_SECONDS}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MEGABYTES}",
        "-print_final_stats=1",
    ]


def _inputs(module: Any, place: Path, corpus: Path | None) -> list[str]:
    """Write what a target begins with. Of several directories libFuzzer keeps what is new in the first."""
    seeds, words = place / "seeds", place / "words"
    seeds.mkdir()
    for number, data in enumerate(module.SEEDS):
        (seeds / f"{number:04d}").write_bytes(data)
    options = [f"-max_len={getattr(module, 'LONGEST', 4096)}"]
    if hasattr(module, "WORDS"):
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in module.WORDS)
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        options.append(f"-dict={words}")
    return [*options, *([str(corpus)] if corpus else []), str(seeds)]


def _report(name: str, prefix: Path, done: "subprocess.CompletedProcess[bytes]") -> str:
    kept = sorted(prefix.parent.glob(f"{prefix.name}*"), key=lambda path: path.stat().st_mtime)
    output = done.stdout.decode(errors="backslashreplace")
    # Between the traceback and the end libFuzzer writes the input in three ways; we do it in one.
    _, _, trace = output.partition("=== Uncaught Python exception: ===")
    trace = trace.partition("\n==")[0] or output
    lines = [f"{name} ended with {done.returncode}:", trace[-6000:]]
    for path in kept[-1:]:
        data = path.read_bytes()
        more = f" and {len(data) - SHOWN_BYTES} more" if len(data) > SHOWN_BYTES else ""
        lines += [
            f"the input, for SEEDS: {data[:SHOWN_BYTES]!r}{more}",
            f"again: python -m tests.fuzz {name} --input {path.relative_to(ROOT)}",
        ]
    return "\n".join(lines)


def _run_structures(module: Any, extent: Extent, check: Callable[[Any], None] | None) -> int:
    ran = 0
    judge = check or module.check

    # The phases leave out the explanation, which takes long and says little here.
    @seed(extent.seed)
    @settings(
        max_examples=extent.inputs,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.normal,
        print_blob=True,
    )
    @given(module.INPUTS)
    def judged(value: Any) -> None:
        nonlocal ran
        ran += 1
        judge(value)

    with quiet():
        judged()
    return ran


@contextmanager
def quiet() -> Iterator[None]:
    """Log errors alone: what is refused is no news here, and many thousand lines of it hide a finding."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    _look_up_loggers_again()
    try:
        yield
    finally:
        structlog.reset_defaults()
        if before:
            structlog.configure(**before)
        _look_up_loggers_again()


def _look_up_loggers_again() -> None:
    for logger in logs._loggers.values():
        logger.forget()
