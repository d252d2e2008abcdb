"""Old changes may be deleted once a row says up to which revision the history is compacted.

Servers of the version before do not read the new table; they go on.
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table, and let the trigger ask it."""
    for statement in STATEMENTS:
        op.execute(statement)


STATEMENTS = (
    """
    CREATE TABLE history_compactions (
        revision     bigint PRIMARY KEY CHECK (revision > 0),
        compacted_at timestamptz NOT NULL DEFAULT now(),
        compacted_by text NOT NULL DEFAULT current_user
    )
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON history_compactions
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
    """
    COMMENT ON TABLE history_compactions IS 'Changes up to the highest revision here may be gone from route_changes;
every later one is there. Written and committed before anything is deleted.'
    """,
    """
    CREATE FUNCTION refuse_deleting_history() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM gone
                    WHERE revision > (SELECT coalesce(max(revision), 0) FROM history_compactions)) THEN
            RAISE EXCEPTION '% is append-only: the history is not compacted up to this revision', TG_TABLE_NAME
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NULL;
    END $$
    """,
    "DROP TRIGGER append_only ON route_changes",
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON route_changes
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
    """
    CREATE TRIGGER compacted_only AFTER DELETE ON route_changes REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_deleting_history()
    """,
)
