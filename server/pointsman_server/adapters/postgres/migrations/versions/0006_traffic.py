"""Traffic, which changes belong together, and an index for reads of what was.

Servers of the version before ignore the new table, and do not write the new columns. They cannot read a change of
traffic, so none may be set before each of them is replaced.
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Build the index without a lock that writers wait for, then add the table, the columns and the rules."""
    with op.get_context().autocommit_block():
        for statement in INDEX:
            op.execute(statement)
    for statement in STATEMENTS:
        op.execute(statement)


# What was as of a revision: the keys that are, and those that were deleted since. One that was interrupted is invalid.
INDEX = (
    "DROP INDEX CONCURRENTLY IF EXISTS route_changes_deleted",
    """
    CREATE INDEX CONCURRENTLY route_changes_deleted
        ON route_changes (tenant, service, env, version, revision) WHERE kind = 'DELETED'
    """,
)

STATEMENTS = (
    """
    CREATE TABLE traffic (
        tenant      text COLLATE "C" NOT NULL,
        service     text COLLATE "C" NOT NULL,
        env         text COLLATE "C" NOT NULL,
        targets     jsonb       NOT NULL,
        fallbacks   jsonb       NOT NULL,
        slices      jsonb       NOT NULL,
        revision    bigint      NOT NULL,
        create_time timestamptz NOT NULL,
        update_time timestamptz NOT NULL,
        PRIMARY KEY (tenant, service, env)
    )
    """,
    """
    COMMENT ON TABLE traffic IS 'How calls are divided between versions. targets: [{"version", "weight"}]; the weights
add up to 10000. fallbacks: [version]. slices: [[version, size]]; each version has as many points as its weight.
Every version that is named has a row in routes: a transaction that writes here, or deletes there, locks clock first.'
    """,
    # With a constant default no row is rewritten.
    "ALTER TABLE route_changes ADD COLUMN change_set_id bigint NOT NULL DEFAULT 0",
    "ALTER TABLE route_changes ADD COLUMN change_set_size int NOT NULL DEFAULT 0",
    # NOT VALID: older rows obey the stricter rules that these replace, so nobody needs to wait while they are read.
    """
    ALTER TABLE route_changes
        DROP CONSTRAINT route_changes_kind_check,
        ADD CONSTRAINT route_changes_kind_check CHECK (kind IN (
            'CREATED', 'UPDATED', 'ACTIVATED', 'DEACTIVATED', 'DELETED', 'TRAFFIC_SET', 'TRAFFIC_DELETED')) NOT VALID,
        DROP CONSTRAINT route_changes_check,
        ADD CONSTRAINT route_changes_before_check CHECK (
            kind = 'TRAFFIC_SET' OR (before IS NULL) = (kind = 'CREATED')) NOT VALID,
        DROP CONSTRAINT route_changes_check1,
        ADD CONSTRAINT route_changes_after_check CHECK (
            (after IS NULL) = (kind IN ('DELETED', 'TRAFFIC_DELETED'))) NOT VALID,
        ADD CONSTRAINT route_changes_version_check CHECK (
            (version = '') = (kind IN ('TRAFFIC_SET', 'TRAFFIC_DELETED'))) NOT VALID
    """,
)
