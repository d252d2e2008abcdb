"""The audit log: a row per epoch and revision, and the chain of hashes over them. In a database of its own, or not."""

from alembic import op
from sqlalchemy import Connection, text

from pointsman.v1 import route_pb2

revision = "a0001"
down_revision = None

BATCH = 1000


def upgrade() -> None:
    """Make the tables; what the one of before held stays."""
    connection = op.get_bind()
    for statement in BEFORE if _has_old_log(connection) else NEW:
        op.execute(statement)
    _name_epochs(connection)
    for statement in STATEMENTS:
        op.execute(statement)


def _has_old_log(connection: Connection) -> bool:
    return connection.execute(text("SELECT to_regclass('audit_log')")).scalar() is not None


def _name_epochs(connection: Connection) -> None:
    """Write the epoch, which the encoded change has, into its column."""
    find = text("SELECT revision, change FROM audit_log WHERE revision > :after ORDER BY revision LIMIT :batch")
    name = text("UPDATE audit_log SET epoch = :epoch WHERE revision = :revision")
    after = 0
    while rows := connection.execute(find, {"after": after, "batch": BATCH}).all():
        after = rows[-1].revision
        named = [(row.revision, route_pb2.RouteChange.FromString(bytes(row.change)).epoch) for row in rows]
        connection.execute(name, [{"revision": number, "epoch": epoch} for number, epoch in named])


# Revision 0001 of the store made a log without epochs.
BEFORE = (
    "ALTER TABLE audit_log DISABLE TRIGGER append_only",
    'ALTER TABLE audit_log ADD COLUMN epoch text COLLATE "C"',
)

NEW = (
    """
    CREATE TABLE audit_log (
        epoch       text COLLATE "C",
        revision    bigint PRIMARY KEY,
        change      bytea NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE OR REPLACE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
)

STATEMENTS = (
    "ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey, ADD PRIMARY KEY (epoch, revision)",
    "ALTER TABLE audit_log ENABLE TRIGGER append_only",
    """
    COMMENT ON TABLE audit_log IS 'One row per epoch and revision, as they arrive. change: the RouteChange of
pointsman.v1 in protobuf''s deterministic serialisation, exactly the bytes that audit_chain hashes.'
    """,
    # Apart from the rows, because those arrive out of order and neither is ever rewritten.
    """
    CREATE TABLE audit_chain (
        epoch    text COLLATE "C" NOT NULL,
        revision bigint NOT NULL CHECK (revision >= 0),
        hash     bytea NOT NULL CHECK (length(hash) = 32),
        PRIMARY KEY (epoch, revision)
    )
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_chain
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
    """
    COMMENT ON TABLE audit_chain IS 'hash(n) = SHA-256(hash(n-1) || audit_log.change of n), for the revisions without
a gap. The first link of an epoch, at the revision before its first, is SHA-256(epoch as UTF-8) and has no change.'
    """,
)
