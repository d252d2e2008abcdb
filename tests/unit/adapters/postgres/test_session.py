"""URLs, connection parameters and session settings, without a database."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pointsman_server.adapters.postgres.session import (
    BadDatabaseUrl,
    UnsuitableDatabase,
    address,
    begin_transaction,
    check_encoding,
    parse_url,
    session_settings,
    to_conninfo,
    to_line,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://someone:SECRET@db.internal:5433/pointsman", "db.internal:5433"),
        ("postgresql://db.internal/pointsman", "db.internal:5432"),
        ("postgresql:///pointsman", "localhost:5432"),
        ("postgresql://h:1,i:2/d", "h:1,i:2"),
        ("postgresql://h,i:2/d", "h:5432,i:2"),
        ("postgresql://h,i/d?port=7", "h:7,i:7"),
        ("postgresql:///d?hostaddr=10.0.0.1", "10.0.0.1:5432"),
        ("postgresql:///d?host=/run/postgresql", "/run/postgresql:5432"),
    ],
)
def test_the_address_names_hosts_and_ports_and_no_password(url: str, expected: str) -> None:
    assert address(parse_url(url)) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:SECRET@h/d?schema=public", "PostgreSQL has no connection parameter 'schema'"),
        ("postgresql://u:SECRET@h/d?sslmode=require&pool_size=5", "PostgreSQL has no connection parameter 'pool_size'"),
        ("postgresql://u:SEC%RET@h/d", "it is not a valid URL; percent-encode special characters"),
        ("postgresql://u:SEC?RET=x%@h/d", "it is not a valid URL; percent-encode special characters"),
        ("postgresql://SECRET:p/w@h/d", "the port is not a number; percent-encode special characters"),
        ("postgresql://h:1,i:x/d", "the port is not a number"),
    ],
)
def test_a_url_that_is_wrong_is_refused_without_any_part_of_its_password(url: str, problem: str) -> None:
    with pytest.raises(BadDatabaseUrl) as raised:
        parse_url(url)
    assert str(raised.value).startswith(problem)
    assert "SEC" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_the_url_may_say_how_to_connect_but_not_in_which_encoding() -> None:
    url = "postgresql://h/d?connect_timeout=9&application_name=x&client_encoding=LATIN1&target_session_attrs=read-write"
    assert conninfo_to_dict(to_conninfo(parse_url(url), timeout=3.0)) == {
        "host": "h",
        "dbname": "d",
        "connect_timeout": "9",
        "application_name": "x",
        "client_encoding": "UTF8",
        "target_session_attrs": "read-write",
        "tcp_user_timeout": "3000",
    }


@pytest.mark.parametrize(("timeout", "seconds"), [(0.2, "2"), (3.9, "3")])
def test_connecting_takes_at_most_the_timeout_but_two_seconds_at_the_least(timeout: float, seconds: str) -> None:
    parameters = conninfo_to_dict(to_conninfo({}, timeout))
    assert (parameters["connect_timeout"], parameters["application_name"]) == (seconds, "pointsman")


def test_no_startup_parameter_is_sent_that_pgbouncer_does_not_track() -> None:
    client_side = {"connect_timeout", "tcp_user_timeout"}
    assert set(conninfo_to_dict(to_conninfo({}, 3.0))) - client_side == {"application_name", "client_encoding"}


def test_the_timeout_of_a_session_is_in_milliseconds() -> None:
    assert session_settings(1.5)["statement_timeout"] == "1500"
    assert session_settings(1.5)["idle_in_transaction_session_timeout"] == "1500"
    assert session_settings(0)["statement_timeout"] == "0"


@pytest.mark.parametrize(("version", "unknown"), [(170000, set()), (150004, {"transaction_timeout"})])
def test_a_transaction_has_the_settings_of_a_session_but_for_what_only_a_session_has(
    version: int, unknown: set[str]
) -> None:
    sql = begin_transaction(1.5, version)
    settings = session_settings(1.5)
    assert "set_config('statement_timeout', '1500', true)" in sql
    assert {name for name in settings if f"'{name}'" not in sql} == unknown | {
        "default_transaction_isolation",
        "idle_session_timeout",
    }


def test_only_utf_8_fits() -> None:
    check_encoding("UTF8")
    with pytest.raises(UnsuitableDatabase, match="has a database in the encoding SQL_ASCII, and Pointsman needs UTF8"):
        check_encoding("SQL_ASCII")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            'connection failed: connection to server at "h", port 1 failed: FATAL:  no such\n\tIs it there?',
            'connection to server at "h", port 1 failed: FATAL: no such',
        ),
        ('connection is bad: invalid sslmode value: "x"', 'invalid sslmode value: "x"'),
        ("", "OperationalError"),
    ],
)
def test_what_the_driver_says_becomes_one_line(text: str, line: str) -> None:
    assert to_line(psycopg.OperationalError(text)) == line
