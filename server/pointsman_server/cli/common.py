"""What commands share: how they read the settings, and how they end."""

from typing import NoReturn

import typer
from pydantic import SecretStr

from pointsman_server.config.settings import Settings, SettingsError, load


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
    """End with 2 unless every engine that ``roles`` need is set (``Settings.require``), and each URL is valid."""
    try:
        settings.require(roles)
    except SettingsError as error:
        fail(str(error), code=2)
    _check_database_url("DATABASE_URL", settings.database_url)
    _check_database_url("POINTSMAN_AUDIT_DATABASE_URL", settings.audit_database_url)


def _check_database_url(variable: str, url: SecretStr) -> None:
    # Imported here, because the driver is not needed to print a help text.
    from pointsman_server.adapters.postgres.session import BadDatabaseUrl, parse_url

    try:
        parse_url(url.get_secret_value())
    except BadDatabaseUrl as error:
        fail(f"{variable}: {error}", code=2)
