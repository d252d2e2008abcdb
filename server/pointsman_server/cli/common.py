"""What commands share: flags of a server process, reading the settings, ending with an exit code."""

from typing import Annotated, NoReturn

import typer
from pydantic import SecretStr

from pointsman_server.config import rules
from pointsman_server.config.environment import load
from pointsman_server.config.rules import SettingsError
from pointsman_server.config.settings import Settings

Listen = Annotated[str | None, typer.Option(help="Where gRPC listens, host:port.", metavar="ADDRESS")]
HttpListen = Annotated[str | None, typer.Option(help="Where operations listen by HTTP, host:port.", metavar="ADDRESS")]
Transport = Annotated[str | None, typer.Option(help="The gRPC server: envoy, grpcio or auto.")]
Roles = Annotated[str | None, typer.Option(help="What this process does: api,relay,cache,audit,xds.")]
XdsListen = Annotated[str | None, typer.Option(help="Where the role xds listens, host:port.", metavar="ADDRESS")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what is wrong, and end: 1 failed, 2 wrong settings or usage."""
    for line in message.splitlines():
        typer.echo(f"pointsman-server: {line}", err=True)
    raise typer.Exit(code)


def read_settings(**flags: object) -> Settings:
    """Read the settings, or end with 2."""
    try:
        return load(overrides=flags)
    except SettingsError as error:
        fail(str(error), code=2)


def require(settings: Settings, roles: tuple[str, ...] | None = None) -> None:
    """End with 2 unless what ``roles`` need is set (``rules.require``), and each URL and file can be used."""
    try:
        rules.require(settings, roles)
    except SettingsError as error:
        fail(str(error), code=2)
    _check_database_url("DATABASE_URL", settings.database_url)
    _check_database_url("POINTSMAN_DATABASE_SESSION_URL", settings.database_session_url)
    for url in settings.database_replica_urls.get_secret_value().split():
        _check_database_url("POINTSMAN_DATABASE_REPLICA_URLS", SecretStr(url))
    _check_database_url("POINTSMAN_AUDIT_DATABASE_URL", settings.audit_database_url)
    check_kafka_files(settings)


def check_kafka_files(settings: Settings) -> None:
    """End with 2 unless every file that Kafka's settings name can be read."""
    from pointsman_server.adapters.kafka.security import unreadable_files

    if settings.kafka_bootstrap_servers and (problems := unreadable_files(settings)):
        fail("\n".join(problems), code=2)


def _check_database_url(variable: str, url: SecretStr) -> None:
    # Imported here, because the driver is not needed to print a help text.
    from pointsman_server.adapters.postgres.session import BadDatabaseUrl, parse_url

    try:
        parse_url(url.get_secret_value())
    except BadDatabaseUrl as error:
        fail(f"{variable}: {error}", code=2)


def require_secure(settings: Settings) -> None:
    """End with 2 when gRPC would be insecure and nothing allows it (``rules.require_secure``)."""
    try:
        rules.require_secure(settings)
    except SettingsError as error:
        fail(str(error), code=2)


def configure_logs(settings: Settings) -> None:
    """Log as the settings say."""
    from pointsman_server.telemetry import logs

    logs.configure(settings.log_level, settings.log_format)
