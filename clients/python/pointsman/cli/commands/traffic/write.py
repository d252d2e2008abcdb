"""The commands of ``pointsman traffic`` that change how calls are divided: set, shift, promote, delete."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, NamedTuple

import typer

from pointsman.change_sets import Activate, DeleteTraffic, Mutation, SetTraffic
from pointsman.cli.context import DryRun, Family, Json, Reason, Wait, settings
from pointsman.cli.output.effects import effects_document, needs_change_sets, refused_by_name, write_effects
from pointsman.cli.output.prompts import confirm
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.propagation import Waiting, waiting_time
from pointsman.cli.traffic.family import FamilyState, family_of, inactive_warnings
from pointsman.cli.traffic.weights import InvalidWeights, check_sum, shifted, version_problem, weights_of
from pointsman.client import Client
from pointsman.keys import FamilyKey
from pointsman.selection import POINTS

Shares = Annotated[
    list[str],
    typer.Argument(metavar="VERSION=PERCENT...", help="Up to two decimals, as in v2=12.5.", show_default=False),
]
Expected = Annotated[int, typer.Option("--expected-revision", min=0, help="Only if the traffic is at it; 0: any.")]


def set_traffic(
    context: typer.Context,
    family: Family,
    shares: Shares,
    fallback: Annotated[
        list[str],
        typer.Option("--fallback", metavar="VERSION", help="If no version with a share is active; in order."),
    ] = [],  # noqa: B006 - typer reads it, and it is never changed
    expected_revision: Expected = 0,
    dry_run: DryRun = False,
    reason: Reason = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Divide the calls of a service between versions: exactly so, whatever was before.

    The shares must add up to 100. Fallbacks that are not given are removed.
    """
    with _usable():
        weights = weights_of(shares)
        check_sum(weights)
    for version in fallback:
        _check_version(version, "--fallback")
    with _changing(context, family, Options(dry_run, reason, wait, as_json)) as change:
        change.make([SetTraffic(change.key, weights, fallback, expected_revision)], weights)


def shift(
    context: typer.Context,
    family: Family,
    shares: Shares,
    expected_revision: Expected = 0,
    dry_run: DryRun = False,
    reason: Reason = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Change the shares of the versions that are given; fallbacks stay.

    Do they add up to 100, other versions get no more calls; to less, the others divide the rest as they do now.
    Refused if the traffic is changed by somebody else meanwhile.
    """
    with _usable():
        wanted = weights_of(shares)
    with _changing(context, family, Options(dry_run, reason, wait, as_json)) as change:
        now = change.now
        with _usable():
            weights = shifted(now.weights, wanted)
        expected = expected_revision or now.revision
        change.make([SetTraffic(change.key, weights, now.fallbacks, expected)], weights)


def promote(
    context: typer.Context,
    family: Family,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="That gets all calls.", show_default=False)],
    expected_revision: Expected = 0,
    dry_run: DryRun = False,
    reason: Reason = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Give all calls to one version, and activate it if it is not active; fallbacks stay. Both is one change set."""
    _check_version(version, "VERSION")
    with _changing(context, family, Options(dry_run, reason, wait, as_json)) as change:
        now, weights = change.now, {version: POINTS}
        traffic = SetTraffic(change.key, weights, now.fallbacks, expected_revision or now.revision)
        change.make([Activate(change.key.version(version)), traffic], weights, activated=[version])


def delete_traffic(
    context: typer.Context,
    family: Family,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also if several versions are active.")] = False,
    expected_revision: Expected = 0,
    dry_run: DryRun = False,
    reason: Reason = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """No longer divide the calls of a service: its only active version gets all of them.

    If several versions are active, no Select is answered until only one is: so it asks, or wants --yes.
    """
    with _changing(context, family, Options(dry_run, reason, wait, as_json)) as change:
        active = change.now.active
        if len(active) > 1 and not dry_run:
            confirm(f"{', '.join(active)} are active, so no Select would be answered", "Delete the traffic?", yes)
        change.make([DeleteTraffic(change.key, expected_revision)], {})


class Options(NamedTuple):
    """The options that all of them have."""

    dry_run: bool
    reason: str
    wait: str
    as_json: bool


class _Change:
    """One change of the traffic of a family, which is as it was read before."""

    def __init__(
        self, client: Client, now: FamilyState, options: Options, terminal: Terminal, waiting: Waiting
    ) -> None:
        self._client = client
        self._options = options
        self._terminal = terminal
        self._waiting = waiting
        self.now = now
        self.key = now.key

    def make(self, mutations: Sequence[Mutation], weights: Mapping[str, int], activated: Sequence[str] = ()) -> None:
        """Commit the mutations as one change set, say what it did, and wait if that was asked for."""
        options = self._options
        with refused_by_name():
            done = self._client.commit(mutations, dry_run=options.dry_run, reason=options.reason)
        write_effects(self._terminal, done, options.dry_run)
        for warning in inactive_warnings(self.now, weights, activated):
            self._terminal.note(warning)
        document = {"key": str(self.key), **effects_document(done, options.dry_run)}
        self._waiting.conclude(document, "", 0 if options.dry_run else done.revision)


@contextmanager
def _changing(context: typer.Context, family: str, options: Options) -> Iterator[_Change]:
    """Connect, and read what there is. Options that cannot be used are refused before anything is sent."""
    seconds, key = waiting_time(options.wait, options.dry_run), FamilyKey.parse(family)
    terminal = settings(context).terminal(options.as_json)
    with settings(context).client(options.as_json) as client, needs_change_sets():
        ask = partial(client.get_propagation, tenant=key.tenant, service=key.service, env=key.env)
        waiting = Waiting(terminal, seconds, lambda revision, timeout: ask(revision, timeout=timeout))
        yield _Change(client, family_of(client, key), options, terminal, waiting)


@contextmanager
def _usable() -> Iterator[None]:
    """Make a usage error of weights that cannot be."""
    try:
        yield
    except InvalidWeights as error:
        raise typer.BadParameter(str(error), param_hint="VERSION=PERCENT") from error


def _check_version(version: str, hint: str) -> None:
    if problem := version_problem(version):
        raise typer.BadParameter(problem, param_hint=hint)
