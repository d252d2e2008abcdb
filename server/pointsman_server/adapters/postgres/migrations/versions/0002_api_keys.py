"""API keys: digests of their secrets, what they grant, and when they end.

Servers of the version before ignore the new table.
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)


STATEMENTS = (
    # digest: SHA-256 of a secret of 256 random bits. Rows stay when keys end: they say who could call, and until when.
    """
    CREATE TABLE api_keys (
        id          text COLLATE "C" PRIMARY KEY,
        name        text COLLATE "C" NOT NULL,
        digest      bytea NOT NULL CHECK (octet_length(digest) = 32),
        grants      text[] NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now(),
        created_by  text NOT NULL,
        expires_at  timestamptz,
        replaced_at timestamptz,
        revoked_at  timestamptz,
        revoked_by  text CHECK ((revoked_by IS NULL) = (revoked_at IS NULL))
    )
    """,
    # One current key per name. A key that was replaced may live beside it for a while: that is a rotation.
    """
    CREATE UNIQUE INDEX api_keys_current ON api_keys (name) WHERE revoked_at IS NULL AND replaced_at IS NULL
    """,
)
