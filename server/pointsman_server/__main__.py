"""The commands of ``pointsman-server``.

The drivers are imported by the commands that need them: ``serve --workers`` supervises from a process that has
loaded neither grpc nor Kafka, and ``--help`` is quick.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from pointsman_server.cli import keys, policy
from pointsman_server.cli.common import fail, read_settings, require
from pointsman_server.config.settings import ServerRole, Settings, SettingsError
from pointsman_server.runtime.gc_freeze import gc_frozen

STARTED = time.monotonic()

app = typer.Typer(
    name="pointsman-server",
    help="Tells every internal service which URL is live for tenant / service / env / version.",
    epilog="Every setting is an environment variable: `pointsman-server check` shows them. "
    "Exit codes: 0 done, 1 failed, 2 wrong settings or usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

audit = typer.Typer(help="The audit log: who changed what, chained by hashes.", no_args_is_help=True)
app.add_typer(audit, name="audit")
dead_letters = typer.Typer(help="Messages of the topic that were set aside as no change.", no_args_is_help=True)
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(policy.app, name="policy")
app.add_typer(keys.app, name="keys")

Listen = Annotated[str | None, typer.Option(help="Where gRPC listens, host:port.", metavar="ADDRESS")]
HttpListen = Annotated[str | None, typer.Option(help="Where operations listen by HTTP, host:port.", metavar="ADDRESS")]
Transport = Annotated[str | None, typer.Option(help="The gRPC server: grpcio, native or auto.")]
Roles = Annotated[str | None, typer.Option(help="What this process does: api,relay,cache,audit.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]


@app.command()
def dev(
    *,
    listen: Listen = None,
    http_listen: HttpListen = None,
    transport: Transport = None,
    roles: Roles = None,
    log_level: LogLevel = None,
    data: Annotated[Path | None, typer.Option(help="Where the embedded engines keep their data.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the data of earlier runs first.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Load a table of example routes.")] = False,
) -> None:
    """Run everything on this machine, with nothing to set up: PostgreSQL, Redis and Kafka come along.

    An engine whose URL is in the environment is used instead of the embedded one.
    """
    settings = read_settings(
        listen=listen,
        http_listen=http_listen,
        transport=transport,
        roles=roles,
        log_level=log_level,
        data_dir=data,
    )
    _require_secure(settings)
    _configure_logs(settings)
    from pointsman_server import embedded
    from pointsman_server.cli import dev as development

    wanted = development.missing_engines(settings)
    # The engines start while the drivers are imported, which takes about as long.
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(embedded.start, settings.data_dir, wanted, fresh=fresh)
        from pointsman_server.adapters.postgres.migrations import MigrationError

        try:
            _run(lambda _: development.run(settings, starting.result(), STARTED, with_demo=demo), with_kafka=True)
        except MigrationError as error:
            fail(str(error))


@app.command()
def serve(
    *,
    listen: Listen = None,
    http_listen: HttpListen = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the gRPC port.")] = None,
    transport: Transport = None,
    roles: Roles = None,
    log_level: LogLevel = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Listen beyond loopback without authentication.")
    ] = False,
    allow_plaintext: Annotated[
        bool, typer.Option("--allow-plaintext", help="Listen beyond loopback without TLS, as behind a mesh.")
    ] = False,
) -> None:
    """Run a server with the engines of DATABASE_URL, REDIS_URL and KAFKA_BOOTSTRAP_SERVERS."""
    settings = read_settings(
        listen=listen,
        http_listen=http_listen,
        workers=workers,
        transport=transport,
        roles=roles,
        log_level=log_level,
        allow_anonymous=allow_anonymous or None,
        allow_plaintext=allow_plaintext or None,
    )
    require(settings)
    _require_secure(settings)
    _check_policy(settings)
    _configure_logs(settings)
    from pointsman_server.app import supervisor

    if settings.workers > 1 and not supervisor.is_worker():
        raise typer.Exit(supervisor.run(settings))

    _run(
        lambda application: asyncio.run(application.serve(settings, application.log_address)),
        with_kafka=bool(settings.kafka_bootstrap_servers),
    )


@app.command()
def migrate() -> None:
    """Bring the schema of DATABASE_URL to the newest revision. Safe to run from many places at once.

    That of the audit log, too: in POINTSMAN_AUDIT_DATABASE_URL if that is set.
    """
    settings = read_settings()
    require(settings, ())
    _configure_logs(settings)
    from pointsman_server.adapters.postgres.migrations import MigrationError
    from pointsman_server.adapters.postgres.migrations import migrate as bring_up

    try:
        before, after = bring_up(
            settings.database_url.get_secret_value(), settings.audit_database_url.get_secret_value()
        )
    except MigrationError as error:
        fail(str(error))
    typer.echo(f"the schema is at {after}" + ("" if before == after else f", it was at {before or 'nothing'}"))


@app.command()
def restore(
    *, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also on a terminal.")] = False
) -> None:
    """Finish the restore of a backup: give the database at DATABASE_URL a new epoch. Run it once per restore.

    The revisions after the backup were given away before, and will be given away again: the epoch tells them apart.
    Servers may run; each drops what it knew of the old epoch within a second.
    """
    settings = read_settings()
    require(settings, ())
    _configure_logs(settings)
    from pointsman_server.cli import restore as restoring

    url = settings.database_url.get_secret_value()
    try:
        if sys.stdin.isatty() and not yes:
            typer.confirm(restoring.question(url), abort=True)
        typer.echo(restoring.describe(restoring.restore(url)))
    except restoring.RestoreError as error:
        fail(str(error))


@app.command()
def check() -> None:
    """Show the effective settings, secrets masked, and try every dependency."""
    settings = read_settings()
    require(settings)
    from pointsman_server.cli import check as checking

    raise typer.Exit(0 if checking.run(settings) else 1)


@audit.command()
def verify(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute the hash chain of the audit log, and say how far it is.

    Ends with 1 when a row is not as it was written, and names the first one; also when the database is down.
    """
    settings = read_settings()
    require(settings, ())
    from pointsman_server.cli import audit as audit_verifying

    try:
        whole = audit_verifying.run(settings, as_json=as_json)
    except audit_verifying.AuditUnavailable as error:
        fail(str(error))
    raise typer.Exit(0 if whole else 1)


@dead_letters.command(name="list")
def list_dead_letters() -> None:
    """List the messages that were set aside: where each lay, its size, and what is wrong. Never what is in it."""
    from pointsman_server.cli import dead_letters as replaying

    _with_kafka(replaying.show)


@dead_letters.command()
def replay(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Send those messages back to their topic that can be read now, as after an upgrade.

    They stay among the dead letters, so another replay sends them again. That does no harm to the server, which
    knows a change by its revision; other consumers of the topic must do the same.
    """
    from pointsman_server.cli import dead_letters as replaying

    _with_kafka(lambda settings: replaying.replay(settings, dry_run=dry_run))


def _with_kafka(work: Callable[[Settings], None]) -> None:
    settings = read_settings()
    if not settings.kafka_bootstrap_servers:
        fail("KAFKA_BOOTSTRAP_SERVERS is not set, and the dead letters lie in Kafka: set it to host:9092", code=2)
    from pointsman_server.ports.broker import BrokerUnavailable

    try:
        work(settings)
    except BrokerUnavailable as error:
        fail(str(error))


def _check_policy(settings: Settings) -> None:
    """End with 2 if the policy is broken, before anything starts, and not in each worker again and again."""
    if settings.policy_file is None or ServerRole.API not in settings.roles:
        return
    from pointsman_server.adapters.files.policy import PolicyError, read_policy

    try:
        read_policy(settings.policy_file)
    except PolicyError as error:
        fail(str(error), code=2)


def _require_secure(settings: Settings) -> None:
    try:
        settings.require_secure()
    except SettingsError as error:
        fail(str(error), code=2)


def _configure_logs(settings: Settings) -> None:
    from pointsman_server.telemetry import logs

    logs.configure(settings.log_level, settings.log_format)


def _run(work: Callable[[ModuleType], None], *, with_kafka: bool) -> None:
    """Load the server, do ``work`` with its module ``app``, and end by what it raises."""
    with gc_frozen():
        # Not alembic, which is a sixth of the memory of a server: only `dev` and `migrate` migrate.
        from pointsman_server.adapters import kafka
        from pointsman_server.adapters.files.policy import PolicyError
        from pointsman_server.adapters.postgres.session import BadDatabaseUrl
        from pointsman_server.app import application
        from pointsman_server.app.grpc_server import ListenError
        from pointsman_server.embedded import EngineError
        from pointsman_server.rpc.transport.server import TransportUnavailable
        from pointsman_server.rpc.transport.tls import BadCertificates

        if with_kafka:
            kafka.load()

    try:
        work(application)
    except (ListenError, EngineError) as error:
        fail(str(error))
    except (TransportUnavailable, PolicyError, BadCertificates, BadDatabaseUrl) as error:
        fail(str(error), code=2)
    if with_kafka:
        _leave_stuck_threads()


def _leave_stuck_threads() -> None:
    """End here if librdkafka keeps a thread: the interpreter would wait for it, perhaps for ever. All is done."""
    from pointsman_server.adapters.kafka.group_consumer import stuck_threads

    if stuck_threads():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
