"""How a session with PostgreSQL begins: the connection parameters, the session settings, and which databases fit.

Session settings are set by a statement after connecting and not by the startup parameter ``options``: PgBouncer refuses
that parameter, and ``options`` in a URL, ALTER ROLE … SET or ALTER DATABASE … SET would replace ours unnoticed.
"""

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

ENCODING = "UTF8"
DEFAULT_PORT = "5432"
# libpq needs two seconds at the least, "because it is not guaranteed to take any time at all" with one.
LEAST_CONNECT_SECONDS = 2
# Values of ``target_session_attrs`` by which libpq passes over a standby.
WRITABLE = ("read-write", "primary")

# First, and alone: the limit of time that the database sets may be too short even for the next statement.
SET_STATEMENT_TIMEOUT = "SELECT set_config('statement_timeout', $1, false)"

# $1: names of settings, $2: their values. A setting that this version of PostgreSQL does not have is left out.
BEGIN_SESSION = """
SELECT getdatabaseencoding()::text, pg_postmaster_start_time(), pg_backend_pid(), (
    SELECT count(set_config(name, value, false))
      FROM unnest($1::text[], $2::text[]) AS wanted (name, value) JOIN pg_settings USING (name))
"""

# Not for one transaction: the isolation level is part of BEGIN, and an idle session is the business of the pooler.
OF_SESSIONS = {"default_transaction_isolation", "idle_session_timeout"}
# The first version of PostgreSQL that has a setting which not all have.
SINCE = {"transaction_timeout": 170000}
# What a connection through a pooler in transaction mode begins with.
SERVER = "SELECT getdatabaseencoding()::text, pg_postmaster_start_time(), pg_backend_pid(), 0"


class BadDatabaseUrl(ValueError):
    """The URL of a database is wrong. The text names the parameter and holds no secret."""


class UnsuitableDatabase(psycopg.OperationalError):
    """The database answers and cannot hold our data. The text continues "PostgreSQL at …"."""


class NoSession(UnsuitableDatabase):
    """A connection that needs a session of its own is behind a pooler in transaction mode."""

    def __init__(self) -> None:
        super().__init__(
            "is behind a pooler in transaction mode, and this needs a session: set POINTSMAN_DATABASE_SESSION_URL to "
            "PostgreSQL itself, or to a pooler in session mode"
        )


def parse_url(url: str) -> dict[str, Any]:
    """Read a URL into libpq's parameters; several hosts are comma-separated in each. Raises BadDatabaseUrl."""
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Without the driver's text and without the cause: both may quote parts of a password.
        raise BadDatabaseUrl(_problem(url)) from None
    ports = str(parameters.get("port", DEFAULT_PORT)).split(",")
    if not all(port.isdigit() or not port for port in ports):
        raise BadDatabaseUrl("the port is not a number; percent-encode special characters of the user and password")
    return parameters


def address(parameters: Mapping[str, Any]) -> str:
    """Name the hosts and ports, for messages: never the password."""
    hosts = str(parameters.get("host") or parameters.get("hostaddr") or "localhost").split(",")
    ports = str(parameters.get("port") or DEFAULT_PORT).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return ",".join(f"{host}:{port or DEFAULT_PORT}" for host, port in zip(hosts, ports, strict=False))


def may_reach_standby(parameters: Mapping[str, Any]) -> bool:
    """Return whether several hosts are named, and nothing says that it must be the one that takes writes."""
    several = any("," in str(parameters.get(name) or "") for name in ("host", "hostaddr"))
    return several and parameters.get("target_session_attrs") not in WRITABLE


def to_conninfo(parameters: Mapping[str, Any], timeout: float) -> str:
    """Add our connection parameters; ``timeout`` bounds, in seconds, connecting and the wait for a lost peer.

    The URL may say otherwise, except for the encoding: the driver decodes text by it.
    """
    defaults = {
        "application_name": "pointsman",
        "connect_timeout": str(max(LEAST_CONNECT_SECONDS, int(timeout))),
        "tcp_user_timeout": str(int(timeout * 1000)),
    }
    return make_conninfo(**(defaults | dict(parameters) | {"client_encoding": ENCODING}))


def session_settings(timeout: float) -> dict[str, str]:
    """Return the settings of a session whose statements take at most ``timeout`` seconds; 0 is without a limit."""
    milliseconds = str(int(timeout * 1000))
    return {
        "statement_timeout": milliseconds,
        # A server that stops in the middle of a transaction may hold the clock, for which all others wait.
        "idle_in_transaction_session_timeout": milliseconds,
        "default_transaction_isolation": "read committed",
        "jit": "off",
        # Bounded by the first two. A database may set these, and would end what must go on.
        "lock_timeout": "0",
        "transaction_timeout": "0",
        "idle_session_timeout": "0",
        # What the driver and our statements read.
        "DateStyle": "ISO, MDY",
        "IntervalStyle": "postgres",
        "standard_conforming_strings": "on",
    }


def begin_transaction(timeout: float, version: int) -> str:
    """Return the SQL that sets the same for one transaction; ``version`` is that of the server, such as 150004.

    It comes with every transaction, and ``pg_settings``, which knows what there is, takes longer than the rest.
    """
    return "SELECT " + ", ".join(
        f"set_config('{name}', '{value}', true)"
        for name, value in session_settings(timeout).items()
        if name not in OF_SESSIONS and version >= SINCE.get(name, 0)
    )


def check_encoding(encoding: str) -> None:
    """Raise UnsuitableDatabase unless a database in ``encoding`` can hold our text."""
    if encoding != ENCODING:
        raise UnsuitableDatabase(
            f"has a database in the encoding {encoding}, and Pointsman needs {ENCODING}: create another one with "
            f"CREATE DATABASE … ENCODING '{ENCODING}' TEMPLATE template0, and name it in the URL"
        )


def to_line(error: BaseException) -> str:
    """Say in one line what the driver or the server says; without the password, which neither repeats."""
    diagnostic = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (diagnostic or str(error)).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[0].removeprefix("connection failed: ").removeprefix("connection is bad: ").split())


def _problem(url: str) -> str:
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    # Only what follows the last @, so that no part of a password is taken for a parameter.
    query = url.rpartition("@")[2].partition("?")[2]
    names = [pair.partition("=")[0] for pair in query.split("&")]
    for name in names:
        if re.fullmatch(r"\w+", name) and name not in known:
            return f"PostgreSQL has no connection parameter {name!r}"
    return "it is not a valid URL; percent-encode special characters of the user and password"
