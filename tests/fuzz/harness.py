"""Runs targets, counts their inputs, and saves the inputs that fail.

A target is a module of ``tests.fuzz.targets`` with a line in ``BUDGETS`` and a test of one line (``fuzz("its_name")``).
It has ``check(value)``, in which any exception is a finding, and

- for bytes, which atheris (libFuzzer) mutates by coverage: a name that ends in ``_bytes``; ``SEEDS``, the first inputs,
  which are also the regression tests of earlier findings; ``MODULES``, the packages to instrument; and optionally
  ``WORDS``, a dictionary, ``LONGEST``, the most bytes, and ``mutate(data, size, seed)``, a custom mutator;
- for structures, which hypothesis generates and shrinks: ``INPUTS``, a strategy.

Runs with the same seed are the same. libFuzzer exits the process, so every run of bytes has its own process
(``tests.fuzz.child``), with bounds of memory and of time for each input.
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

# The inputs of each target in one run of the suite; at least TOTAL together.
TOTAL = 100_000
BUDGETS = {
    "api_key_bytes": 10_000,
    "bearer_token_bytes": 10_000,
    "cached_value_bytes": 15_000,
    "change_bytes": 20_000,
    "fast_path_bytes": 6_000,
    "file_bytes": 20_000,
    "grant_bytes": 10_000,
    "issuer_keys_bytes": 10_000,
    "page_token_bytes": 20_000,
    "policy_bytes": 10_000,
    "request_bytes": 20_000,
    "rule_bytes": 40_000,
    "watch_bytes": 8_000,
    "xds_request_bytes": 20_000,
    "xds_question_bytes": 5_000,
    "file_rows": 1_500,
    "asgi_calls": 1_000,
    "metadata": 1_000,
    "redis_scripts": 500,
    "requests": 1_500,
    "reverts": 500,
}
SEED = 20_261_124
# The property under which a test reports its number of inputs, which pytest's summary adds up (tests/conftest.py).
PROPERTY = "fuzz_inputs"
INPUT_SECONDS = 30
PROCESS_SECONDS = 900
MEGABYTES = 1024
SHOWN_BYTES = 400

_EXECUTED = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")


class Finding(AssertionError):
    """An input that breaks a rule of the target, and how to run it again."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The length of a run, in inputs or seconds, and its seed."""

    inputs: int = 0
    seconds: float = 0.0
    seed: int = SEED


def target(name: str) -> Any:
    """Import the module of a target; a name with dots is a full module name."""
    return importlib.import_module(name if "." in name else f"tests.fuzz.targets.{name}")


def takes_bytes(name: str) -> bool:
    """Return whether atheris runs the target. The module is not imported, so that it can be instrumented."""
    return name.endswith("_bytes")


def run(name: str, extent: Extent, corpus: Path | None = None, check: Callable[[Any], None] | None = None) -> int:
    """Run a target and return its number of inputs. Raises Finding, or for structures the exception of ``check``.

    ``check`` replaces that of the module, for targets that need something of a test. ``corpus`` is a directory from
    which inputs are read, and where inputs with new coverage are saved.
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
    """Write the first inputs of a target. libFuzzer saves new inputs in the first of its directories."""
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
    # After the traceback libFuzzer prints the input in three formats; this report prints it in one.
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

    # Without the explain phase, which takes long and adds little here.
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
    """Log only errors: thousands of lines about refusals would hide a finding."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    logs.look_up_again()
    try:
        yield
    finally:
        structlog.reset_defaults()
        if before:
            structlog.configure(**before)
        logs.look_up_again()
