"""Old rows of the audit log may be deleted once a row keeps the link that the rest of the chain continues."""

from alembic import op

revision = "a0002"
down_revision = "a0001"


def upgrade() -> None:
    """Make the table, and let the triggers ask it."""
    for statement in STATEMENTS:
        op.execute(statement)


STATEMENTS = (
    """
    CREATE TABLE audit_compactions (
        epoch        text COLLATE "C" NOT NULL,
        revision     bigint NOT NULL CHECK (revision >= 0),
        hash         bytea NOT NULL CHECK (length(hash) = 32),
        compacted_at timestamptz NOT NULL DEFAULT now(),
        compacted_by text NOT NULL DEFAULT current_user,
        PRIMARY KEY (epoch, revision)
    )
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_compactions
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
    """
    COMMENT ON TABLE audit_compactions IS 'Rows of an epoch up to its highest revision here may be gone from audit_log,
and links before it from audit_chain. hash: the link of that revision, which the next one continues. Written and
committed before anything is deleted.'
    """,
    """
    CREATE FUNCTION refuse_deleting_audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM gone WHERE NOT EXISTS (
                SELECT FROM audit_compactions c
                 WHERE c.epoch = gone.epoch
                   AND (c.revision > gone.revision OR (c.revision = gone.revision AND TG_TABLE_NAME = 'audit_log'))
            )) THEN
            RAISE EXCEPTION '% is append-only: the log is not compacted up to this revision', TG_TABLE_NAME
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NULL;
    END $$
    """,
    "DROP TRIGGER append_only ON audit_log",
    "DROP TRIGGER append_only ON audit_chain",
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit_chain
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
    """
    CREATE TRIGGER compacted_only AFTER DELETE ON audit_log REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_deleting_audit()
    """,
    """
    CREATE TRIGGER compacted_only AFTER DELETE ON audit_chain REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_deleting_audit()
    """,
)
