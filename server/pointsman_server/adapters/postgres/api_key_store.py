"""``ports.ApiKeyStore`` on PostgreSQL. All times are those of the database, so that they are of one clock."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

from psycopg.errors import UniqueViolation

from pointsman_server.adapters.postgres.connection import Connection
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.domain.api_keys import ApiKey, Minted
from pointsman_server.domain.grants import grant_texts, parse_grant
from pointsman_server.domain.identity import Grant
from pointsman_server.ports.credentials import KeyDraft, KeyNameTaken, KeyNotFound

logger = logging.getLogger(__name__)

COLUMNS = "id, name, digest, grants, created_at, created_by, expires_at, replaced_at, revoked_at, revoked_by"

LIVING = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

KNOWN = f"""
SELECT {COLUMNS} FROM api_keys
 WHERE least(revoked_at, expires_at, 'infinity') > now() - interval '30 days'
 ORDER BY name, created_at, id
"""

# An expired key no longer occupies its name.
RELEASE_EXPIRED_NAME = """
UPDATE api_keys SET replaced_at = now()
 WHERE name = %(name)s AND revoked_at IS NULL AND replaced_at IS NULL AND expires_at <= now()
"""

INSERT = f"""
INSERT INTO api_keys (id, name, digest, grants, created_by, expires_at)
VALUES (%(id)s, %(name)s, %(digest)s, %(grants)s, %(created_by)s, now() + %(lifetime)s::interval)
RETURNING {COLUMNS}
"""

# Locks the row: of two concurrent rotations the second replaces the key of the first, or finds none.
REPLACE = f"""
UPDATE api_keys SET replaced_at = now(), expires_at = least(expires_at, now() + %(overlap)s)
 WHERE name = %(name)s AND replaced_at IS NULL AND {LIVING}
RETURNING grants
"""

REVOKE = f"""
UPDATE api_keys SET revoked_at = now(), revoked_by = %(by)s
 WHERE (id = %(which)s OR name = %(which)s) AND {LIVING}
RETURNING {COLUMNS}
"""


class PostgresApiKeyStore:
    """The keys in the table ``api_keys``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self) -> list[ApiKey]:
        async with self._database.connection() as connection:
            return [_key(row) for row in await (await connection.execute(KNOWN)).fetchall()]

    async def create(self, draft: KeyDraft, minted: Minted) -> ApiKey:
        grants = [text for grant in draft.grants for text in grant_texts(grant)]
        try:
            async with self._database.connection() as connection:
                await connection.execute(RELEASE_EXPIRED_NAME, {"name": draft.name})
                return await _insert(connection, draft, minted, grants)
        except UniqueViolation as error:
            raise KeyNameTaken(draft.name) from error

    async def rotate(self, draft: KeyDraft, minted: Minted, overlap: timedelta) -> ApiKey:
        async with self._database.connection() as connection:
            replaced = await connection.execute(REPLACE, {"name": draft.name, "overlap": overlap})
            row = await replaced.fetchone()
            if row is None:
                raise KeyNotFound(draft.name)
            return await _insert(connection, draft, minted, row[0])

    async def revoke(self, name_or_id: str, by: str) -> list[ApiKey]:
        async with self._database.connection() as connection:
            revoked = await connection.execute(REVOKE, {"which": name_or_id, "by": by})
            rows = await revoked.fetchall()
        if not rows:
            raise KeyNotFound(name_or_id)
        return sorted(map(_key, rows), key=lambda key: (key.name, key.created_at, key.id))


async def _insert(connection: Connection, draft: KeyDraft, minted: Minted, grants: Sequence[str]) -> ApiKey:
    values = {
        "id": minted.id,
        "name": draft.name,
        "digest": minted.digest,
        "grants": list(grants),
        "created_by": draft.created_by,
        "lifetime": draft.lifetime,
    }
    row = await (await connection.execute(INSERT, values)).fetchone()
    if row is None:
        raise RuntimeError("an insert returned no row")
    return _key(row)


def _key(row: Sequence[Any]) -> ApiKey:
    key_id, name, digest, grants, created_at, created_by, expires_at, replaced_at, revoked_at, revoked_by = row
    known = tuple(grant for grant in map(_grant, grants) if grant)
    dates = {"expires_at": expires_at, "replaced_at": replaced_at, "revoked_at": revoked_at}
    return ApiKey(key_id, name, digest, known, created_at, created_by, revoked_by=revoked_by or "", **dates)


@lru_cache(maxsize=10_000)
def _grant(text: str) -> Grant | None:
    """Read a grant. None for a grant of a later version: it grants nothing here; the other grants of the key hold."""
    try:
        return parse_grant(text)
    except ValueError as error:
        # Once per text, thanks to the cache.
        logger.warning("a grant of an API key grants nothing: %s", error)
        return None
