"""``pointsman-server migrate``: bring the schema to the newest revision."""

import typer

from pointsman_server.adapters.postgres.migrations import MigrationError
from pointsman_server.adapters.postgres.migrations import migrate as upgrade
from pointsman_server.cli.common import configure_logs, fail, read_settings, require


def migrate() -> None:
    """Bring the schema of DATABASE_URL to the newest revision. Safe to run from many places at once.

    It connects by POINTSMAN_DATABASE_SESSION_URL if that is set. That of the audit log, too: in
    POINTSMAN_AUDIT_DATABASE_URL if that is set.
    """
    settings = read_settings()
    require(settings, ())
    configure_logs(settings)
    url = settings.database_session_url or settings.database_url
    try:
        before, after = upgrade(url.get_secret_value(), settings.audit_database_url.get_secret_value())
    except MigrationError as error:
        fail(str(error))
    typer.echo(f"the schema is at {after}" + ("" if before == after else f", it was at {before or 'nothing'}"))
