"""``python -m tests.fuzz``: run targets for a time, from a seed that is drawn and printed, on a corpus that grows.

``make fuzz ARGS='--seconds 600'`` shares the time among all targets; ``--input FILE`` runs one input of one target.
"""

import argparse
import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz import harness

STRUCTURES_AT_ONCE = 500


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(harness.BUDGETS)}; else all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="else one is drawn")
    parser.add_argument("--input", type=Path, help="run this one input")
    chosen = parser.parse_args(arguments)
    if chosen.input and len(chosen.targets) != 1:
        parser.error("--input needs one target")
    unknown = [name for name in chosen.targets if name not in harness.BUDGETS and not chosen.input]
    if unknown or chosen.seconds <= 0:
        parser.error(f"no such target: {', '.join(unknown)}" if unknown else "--seconds must be above 0")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return 1 when something was found."""
    chosen = options(arguments)
    if chosen.input:
        with harness.quiet():
            harness.target(chosen.targets[0]).check(chosen.input.read_bytes())
        return 0
    names = chosen.targets or list(harness.BUDGETS)
    seed = secrets.randbelow(2**31) if chosen.seed is None else chosen.seed
    print(f"seed {seed}: --seed {seed} begins the same way", flush=True)
    results = [_run(name, chosen.seconds / len(names), seed) for name in names]
    print(f"{sum(ran for ran, _ in results):>12,} in all")
    return int(any(failed for _, failed in results))


def _run(name: str, seconds: float, seed: int) -> tuple[int, bool]:
    begun = time.monotonic()
    ran, failed = 0, False
    try:
        ran = _bytes(name, seconds, seed) if harness.takes_bytes(name) else _structures(name, seconds, seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
        notes = getattr(error, "__notes__", ())
        print("\n".join((f"{type(error).__name__}: {error}", *notes)), file=sys.stderr)
        failed = True
    print(f"{ran:>12,} {name} in {time.monotonic() - begun:.0f} s{' FAILED' if failed else ''}", flush=True)
    return ran, failed


def _bytes(name: str, seconds: float, seed: int) -> int:
    corpus = harness.CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    return harness.run(name, harness.Extent(seconds=max(1.0, seconds), seed=seed), corpus)


def _structures(name: str, seconds: float, seed: int) -> int:
    until, ran = time.monotonic() + seconds, 0
    with _check(name) as check:
        while time.monotonic() < until:
            ran += harness.run(name, harness.Extent(STRUCTURES_AT_ONCE, seed=seed + ran), check=check)
    return ran


@contextlib.contextmanager
def _check(name: str) -> Iterator[Callable[[Any], None] | None]:
    """Lend what judges a structure: the target's own, or one that needs an engine."""
    if name != "redis_scripts":
        yield None
        return
    from tests.fuzz.targets import redis_scripts
    from tests.support.engines import fresh_redis, session_engines

    with session_engines(("redis",)) as running, redis_scripts.rig(fresh_redis(running.urls["REDIS_URL"])) as rig:
        yield rig.check


if __name__ == "__main__":
    sys.exit(main())
