"""Run it: ``python -m tests.faults [--seconds N] [--seed S] [--transport NAME] [--brokers N] [--redis-cluster]``.

Exit code 0: every promise held. 1: one was broken. 2: the run says nothing, because the load was too thin or a row of
the table was not exercised.
"""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults import report
from tests.faults.checking import Bounds, Verdict
from tests.faults.comparing import compare
from tests.faults.eras import check_eras
from tests.faults.faulting import Fault, Injected, inject
from tests.faults.load import Load
from tests.faults.near_caches import NearCaches, check_near_caches
from tests.faults.rig import TRANSPORTS, TTL_LOCAL, TTL_SHARED, Rig, read_clock, read_rows
from tests.faults.strikes import accepted_is_answered, caught
from tests.faults.table import FAULTS
from tests.faults.traffic.checking import check_traffic
from tests.faults.traffic.clients import TrafficLoad
from tests.faults.watch_checking import check_watchers
from tests.faults.watchers import Watchers
from tests.faults.xds.checking import check_xds
from tests.faults.xds.clients import XdsClients

LEAST_RATE = 100.0
READS_AVAILABLE = 0.999
BROKEN, INVALID = 1, 2
# What servers log as an error because we made it one.
EXPECTED = " set aside "


@dataclass(slots=True)
class Run:
    """What a run did."""

    load: Load
    traffic: TrafficLoad
    watchers: Watchers
    near_caches: NearCaches
    xds: XdsClients
    injected: list[Injected]
    begin: float
    end: float


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="at least so long")
    parser.add_argument("--operations", type=int, default=0, help="and at least so many operations")
    parser.add_argument("--injections", type=int, default=0, help="and at least so many faults, each at least once")
    parser.add_argument("--seed", type=int, default=None, help="of the choices; drawn and printed when not given")
    parser.add_argument("--rate", type=float, default=320.0, help="calls a second of all readers together")
    parser.add_argument("--only", default="", help="inject only faults whose name contains this")
    hold = "hold each fault for so many seconds (default: as its row says)"
    parser.add_argument("--hold", type=float, default=0.0, help=hold)
    parser.add_argument("--server-path", default="", help="run the servers from this copy of server/")
    names = "of every server (default: the first and the third serve by envoy, the second by grpcio)"
    parser.add_argument("--transport", choices=TRANSPORTS, default="", help=names)
    brokers = "of Kafka: with three, one of them is killed, too"
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help=brokers)
    parser.add_argument("--redis-cluster", action="store_true", help="on a Redis Cluster of three nodes")
    given = parser.parse_args(arguments)
    if not chosen_by(given.only, given.brokers):
        names = ", ".join(fault.name for fault in chosen_by("", given.brokers))
        parser.error(f"--only: no name contains it: {names}")
    return given


def chosen_by(only: str, brokers: int = 1) -> list[Fault]:
    """Choose the faults whose name contains ``only``, in capitals or not, and for which there are enough brokers."""
    return [fault for fault in FAULTS if only.casefold() in fault.name.casefold() and fault.brokers <= brokers]


def schedule(dice: random.Random, chosen: Sequence[Fault]) -> Iterator[Fault]:
    """Yield faults without end: all of them in one order, then all of them in another."""
    while True:
        yield from dice.sample(chosen, len(chosen))


async def attack(rig: Rig, given: argparse.Namespace) -> Run:
    """Drive the load and inject faults until there is enough of everything."""
    dice = random.Random(given.seed)
    load = Load(rig.servers, given.seed, given.rate)
    await load.start()
    traffic = TrafficLoad(load)
    await traffic.start()
    watchers = Watchers(rig.servers, given.seed)
    watchers.start()
    near_caches = NearCaches(rig.servers, given.seed)
    await near_caches.start()
    xds = XdsClients(load, rig, given.seed)
    await xds.start()
    run = Run(load, traffic, watchers, near_caches, xds, [], time.monotonic(), 0.0)
    rows = chosen_by(given.only, given.brokers)
    wanted = max(given.injections, len(rows))
    try:
        for fault in schedule(dice, rows):
            await asyncio.sleep(dice.uniform(0.2, 0.5))
            print(f"{time.monotonic() - run.begin:7.1f} s  {fault.name}", flush=True)
            run.injected.append(await inject(rig, fault, dice, load, given.hold))
            await asyncio.gather(xds.follow(fault.name, run.injected[-1].begin), asyncio.sleep(dice.uniform(0.6, 1.5)))
            enough = load.history.operations >= given.operations and len(run.injected) >= wanted
            if enough and time.monotonic() - run.begin >= given.seconds:
                break
        await asyncio.sleep(3.0)
        run.end = time.monotonic()
    finally:
        await load.stop()
        revision = await asyncio.to_thread(_revision, rig)
        await asyncio.gather(watchers.stop(revision), near_caches.stop(revision), xds.stop())
    return run


def _revision(rig: Rig) -> int:
    with rig.connect() as connection:
        return read_clock(connection).revision


def judge(rig: Rig, run: Run) -> Verdict:
    """Check the history, and the copies against it."""
    history, degraded = run.load.history, [each.degraded for each in run.injected if each.degraded]
    with rig.connect() as connection:
        rig.era.rows = read_rows(connection)
    verdict, models = check_eras(history, rig.eras, Bounds(TTL_LOCAL, TTL_SHARED), degraded)
    last, near = models[-1], [each.selected for each in run.near_caches.observed]
    # The change sets of xDS clients are held to the same rules as others.
    run.traffic.observed.sets += run.xds.observed.sets
    found_of_traffic, run.traffic.staleness = check_traffic(run.traffic.observed, near, models, rig.eras)
    verdict.violations += found_of_traffic
    verdict.checked += len(run.traffic.observed.selected)
    strikes, wall = [strike for each in run.injected for strike in each.strikes], time.time() - time.monotonic()
    verdict.violations += accepted_is_answered(history, rig.eras, strikes, wall)
    verdict.violations += compare(rig, last)
    verdict.violations += check_watchers(run.watchers.views, rig.eras)
    verdict.violations += check_near_caches(run.near_caches.observed, rig.eras)
    verdict.violations += check_xds(run.xds.observed, rig.eras, wall)
    lost = sum(len(era.rows) - following.base for era, following in pairwise(rig.eras))
    found = caught(history, rig.eras, strikes, wall)
    print(
        f"{len(last.rows)} changes in PostgreSQL and {lost} that restores took back; audit log, Kafka, Redis compared"
    )
    print(
        f"under way when their server was killed: {found.not_made} writes not made, {found.made} made, not answered; "
        f"{found.sets_not_made} and {found.sets_made} of them change sets"
    )
    return verdict


def tell(run: Run, verdict: Verdict) -> int:
    """Print the table, and give the exit code."""
    history = run.load.history
    table = report.lines(history, run.injected, verdict)
    rate = report.slowest_rate(history.calls, run.begin, run.end)
    print("\n" + report.render(table) + "\n")
    available = True
    for component in ("server", "Redis", "Kafka", "PostgreSQL"):
        reads, answered = report.availability(table, component)
        share = answered / reads if reads else 1.0
        available &= share >= READS_AVAILABLE
        what = "of cached keys " if component == "PostgreSQL" else ""
        print(f"reads {what}answered while {component} was out of order: {answered} of {reads}, {100 * share:.3f} %")
    seconds = run.end - run.begin
    print(f"staleness of the reads that missed a write, ms: {report.percentiles(b for _, b in verdict.staleness)}")
    print(f"{history.operations} operations, {verdict.checked} answers checked")
    print(f"{len(run.injected)} injections in {seconds:.0f} s")
    print(f"calls a second: {len(history.calls) / seconds:.0f}, at least {rate:.0f} in every {report.WINDOW_SECONDS} s")
    views = [view for views in run.watchers.views for view in views]
    sets = sum(len(view.received) for view in views)
    ends = ", ".join(f"{end} {count}" for end, count in sorted(Counter(run.watchers.ends).items()))
    print(f"watchers: {len(run.watchers.views)}, with {len(views)} views and {sets} change sets; streams ended: {ends}")
    print(report.of_traffic(run.traffic.observed, history.calls, run.traffic.staleness))
    seen = run.near_caches.observed
    answers, looks = sum(len(each.shown) for each in seen), sum(len(each.looks) for each in seen)
    selections = sum(len(each.selected) for each in seen)
    print(
        f"near-caches: {len(seen)}, with {answers} answers, {selections} selections, {looks} looks at the whole table"
    )
    print(report.of_xds(run.xds.observed))
    print(f"failed attempts: {report.failures(history)}")
    print(f"violations: {len(verdict.violations)}")
    if verdict.violations:
        print(report.explain(verdict.violations))
        return BROKEN
    if not available:
        print("too few reads were answered")
        return BROKEN
    if report.missed(table):
        print(f"invalid: never caught what they are about: {', '.join(report.missed(table))}")
        return INVALID
    if rate < LEAST_RATE:
        print(f"invalid: fewer than {LEAST_RATE:g} calls a second at some time")
        return INVALID
    return 0


async def run_all(given: argparse.Namespace) -> int:
    """Start, attack, judge, tell; and end everything, whatever happens."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, this.cancel)
    rig = Rig(given.server_path, given.transport, given.brokers, redis_cluster=given.redis_cluster)
    try:
        await rig.start()
        run = await attack(rig, given)
        return tell(run, await asyncio.to_thread(judge, rig, run))
    finally:
        rig.close()
        for error in sorted({line[:400] for server in rig.servers for line in server.errors if EXPECTED not in line})[
            :10
        ]:
            print(error, file=sys.stderr)


def main() -> int:
    """Run with the options of the command line."""
    given = options()
    given.seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    print(f"seed {given.seed}", flush=True)
    try:
        return asyncio.run(run_all(given))
    except asyncio.CancelledError:
        return 130


if __name__ == "__main__":
    sys.exit(main())
