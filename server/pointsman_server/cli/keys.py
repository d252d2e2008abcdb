"""``pointsman-server keys``: make, list, rotate and revoke API keys. A key is shown once, when it is made."""

import asyncio
import getpass
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pointsman_server.cli.common import fail, read_settings, require
from pointsman_server.config.settings import Settings
from pointsman_server.domain.grants import grant_texts, parse_grant

if TYPE_CHECKING:
    from pointsman_server.domain.api_keys import ApiKey
    from pointsman_server.ports.credentials import ApiKeyStore, KeyDraft

T = TypeVar("T")

TIMEOUT_SECONDS = 5.0
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
# So that no date is past the year 9999.
LONGEST = timedelta(days=36_500)

Name = Annotated[str, typer.Argument(help="Whom it is for: callers appear as key:NAME.")]
ExpiresIn = Annotated[str | None, typer.Option(help="How long it lives: 90d (the default), 12h, 30m.", metavar="TIME")]
Never = Annotated[bool, typer.Option("--never-expires", help="It lives until it is revoked.")]
By = Annotated[str | None, typer.Option(help="Who does this; by default the user of the operating system.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def create(
    name: Name,
    *,
    grant: Annotated[
        list[str] | None, typer.Option(help="What it grants, role:tenant[:env]; may be repeated.", metavar="GRANT")
    ] = None,
    expires_in: ExpiresIn = None,
    never_expires: Never = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it on stdout: only once, because only its digest is stored.

    Without --grant it may do what the policy grants to key:NAME. Every server knows it within
    POINTSMAN_ACCESS_REFRESH_SECONDS.
    """
    from pointsman_server.domain.api_keys import mint
    from pointsman_server.ports.credentials import KeyNameTaken

    draft, minted = _draft(name, grant, expires_in, by, never_expires=never_expires), mint()
    try:
        key = _with_store(lambda store: store.create(draft, minted))
    except KeyNameTaken:
        fail(f"a living key is called {name}: rotate or revoke it, or choose another name")
    _show_once(minted.text, key, as_json=as_json)


def list_keys(*, as_json: AsJson = False) -> None:
    """List the keys that live, and those that ended in the last 30 days. Never a key itself."""
    keys = _with_store(lambda store: store.known())
    if as_json:
        typer.echo(json.dumps([_facts(key) for key in keys]))
        return
    rows = [("NAME", "ID", "STATE", "EXPIRES", "GRANTS", "CREATED", "BY"), *map(_row, keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def rotate(
    name: Name,
    *,
    overlap: Annotated[str, typer.Option(help="How long the key before goes on working.", metavar="TIME")] = "24h",
    expires_in: ExpiresIn = None,
    never_expires: Never = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key of the same name with the same grants; the one before works until the overlap is over."""
    from pointsman_server.domain.api_keys import mint
    from pointsman_server.ports.credentials import KeyNotFound

    draft, minted = _draft(name, None, expires_in, by, never_expires=never_expires), mint()
    span = _or_usage(lambda: _span(overlap, "--overlap"))
    try:
        key = _with_store(lambda store: store.rotate(draft, minted, span))
    except KeyNotFound:
        fail(f"no living key is called {name}: `pointsman-server keys list` shows them, `create` makes one")
    _show_once(minted.text, key, as_json=as_json)


def revoke(
    name_or_id: Annotated[str, typer.Argument(help="All living keys of a name, or the one of an id.")],
    *,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Revoke keys for good. Every server refuses them within POINTSMAN_ACCESS_REFRESH_SECONDS."""
    from pointsman_server.ports.credentials import KeyNotFound

    who = _or_usage(lambda: _who(by))
    try:
        keys = _with_store(lambda store: store.revoke(name_or_id, who))
    except KeyNotFound:
        fail(f"no living key has the name or the id {name_or_id}: `pointsman-server keys list` shows them")
    if as_json:
        typer.echo(json.dumps([_facts(key) for key in keys]))
        return
    for key in keys:
        typer.echo(f"revoked {key.name} ({key.id})")


def _draft(
    name: str, grants: list[str] | None, expires_in: str | None, by: str | None, *, never_expires: bool
) -> "KeyDraft":
    from pointsman_server.domain.api_keys import check_name
    from pointsman_server.ports.credentials import KeyDraft

    def read() -> KeyDraft:
        check_name(name)
        if never_expires and expires_in:
            raise ValueError("--expires-in and --never-expires exclude each other")
        lifetime = None if never_expires else _span(expires_in or "90d", "--expires-in")
        return KeyDraft(name, tuple(parse_grant(text) for text in grants or ()), _who(by), lifetime)

    return _or_usage(read)


def _span(text: str, option: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,7})([mhd])", text)
    span = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < span <= LONGEST:
        raise ValueError(f"{option} must be a time such as 30m, 12h or 90d, above 0 and at most 36500d, not {text!r}")
    return span


def _who(given: str | None) -> str:
    try:
        who = given if given is not None else getpass.getuser()
    except (KeyError, OSError):
        # In a container the user may have a number and no name.
        raise ValueError("the user of the operating system has no name: say who you are by --by") from None
    if not 0 < len(who) <= 128 or not who.isprintable():
        raise ValueError("--by must be 1 to 128 printable characters")
    return who


def _or_usage(read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        fail(str(error), code=2)


def _with_store(work: "Callable[[ApiKeyStore], Awaitable[T]]") -> T:
    settings = read_settings()
    require(settings, ())
    return asyncio.run(_work(settings, work))


async def _work(settings: Settings, work: "Callable[[ApiKeyStore], Awaitable[T]]") -> T:
    from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
    from pointsman_server.adapters.postgres.database import Database
    from pointsman_server.domain.errors import RetryLater

    url = settings.database_url.get_secret_value()
    database = Database(url, pooled=True, pool_min=1, pool_max=1, timeout=TIMEOUT_SECONDS)
    await database.open()
    try:
        return await work(PostgresApiKeyStore(database))
    except RetryLater as error:
        fail(f"PostgreSQL at {database.address} {database.explain(error)}")
    finally:
        await database.close()


def _show_once(text: str, key: "ApiKey", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_facts(key) | {"key": text}))
        return
    # The key alone on stdout, so that it can go straight to where it is kept.
    typer.echo(text)
    until = f"until {_moment(key.expires_at)}" if key.expires_at else "until it is revoked"
    typer.echo(f"{key.name} ({key.id}) works {until}. It is shown this once: keep it where secrets are kept.", err=True)


def _facts(key: "ApiKey") -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "state": _state(key),
        "grants": [text for grant in key.grants for text in grant_texts(grant)],
        "created_at": _moment(key.created_at),
        "created_by": key.created_by,
        "expires_at": _moment(key.expires_at),
        "replaced_at": _moment(key.replaced_at),
        "revoked_at": _moment(key.revoked_at),
        "revoked_by": key.revoked_by or None,
    }


def _row(key: "ApiKey") -> tuple[str, ...]:
    grants = ",".join(text for grant in key.grants for text in grant_texts(grant))
    expires, created = _moment(key.expires_at) or "never", _moment(key.created_at) or ""
    return key.name, key.id, _state(key), expires, grants or "-", created, key.created_by


def _state(key: "ApiKey") -> str:
    if key.revoked_at:
        return "revoked"
    if key.expired(datetime.now(UTC).timestamp()):
        return "expired"
    return "replaced" if key.replaced_at else "current"


def _moment(time: datetime | None) -> str | None:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else None
