"""Routes, their history, the clock that orders it, and the relay's progress."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    for statement in STATEMENTS:
        op.execute(statement)


STATEMENTS = (
    # One row. It stays locked from taking a revision to the commit, so commit order is revision order.
    """
    CREATE TABLE clock (
        single   boolean PRIMARY KEY DEFAULT true CHECK (single),
        epoch    uuid    NOT NULL DEFAULT gen_random_uuid(),
        revision bigint  NOT NULL DEFAULT 0 CHECK (revision >= 0)
    )
    """,
    "INSERT INTO clock DEFAULT VALUES",
    # What is, as of clock.revision. COLLATE "C": keys sort by code point, everywhere the same.
    """
    CREATE TABLE routes (
        tenant      text COLLATE "C" NOT NULL,
        service     text COLLATE "C" NOT NULL,
        env         text COLLATE "C" NOT NULL,
        version     text COLLATE "C" NOT NULL,
        url         text        NOT NULL,
        active      boolean     NOT NULL,
        labels      jsonb       NOT NULL,
        revision    bigint      NOT NULL,
        create_time timestamptz NOT NULL,
        update_time timestamptz NOT NULL,
        PRIMARY KEY (tenant, service, env, version)
    )
    """,
    # What happened: the outbox, the audit trail and what Watch resumes from. One row per revision, append-only.
    """
    CREATE TABLE route_changes (
        revision    bigint PRIMARY KEY,
        event_id    uuid NOT NULL,
        kind        text NOT NULL CHECK (kind IN ('CREATED', 'UPDATED', 'ACTIVATED', 'DEACTIVATED', 'DELETED')),
        tenant      text COLLATE "C" NOT NULL,
        service     text COLLATE "C" NOT NULL,
        env         text COLLATE "C" NOT NULL,
        version     text COLLATE "C" NOT NULL,
        before      jsonb CHECK ((before IS NULL) = (kind = 'CREATED')),
        after       jsonb CHECK ((after IS NULL) = (kind = 'DELETED')),
        actor       text NOT NULL,
        reason      text NOT NULL,
        request_id  text NOT NULL,
        occurred_at timestamptz NOT NULL,
        epoch       uuid NOT NULL,
        traceparent text NOT NULL
    )
    """,
    "CREATE INDEX route_changes_by_key ON route_changes (tenant, service, env, version, revision)",
    "CREATE INDEX route_changes_by_actor ON route_changes (actor, revision)",
    """
    CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON route_changes
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
    # Progress of the relay: the broker has every change up to this revision.
    """
    CREATE TABLE relay (
        single   boolean PRIMARY KEY DEFAULT true CHECK (single),
        revision bigint  NOT NULL DEFAULT 0
    )
    """,
    "INSERT INTO relay DEFAULT VALUES",
    # The answers of mutations by request_id (AIP-155), per tenant so that no tenant sees another's. Purged by age.
    """
    CREATE TABLE requests (
        tenant      text COLLATE "C" NOT NULL,
        request_id  text COLLATE "C" NOT NULL,
        fingerprint bytea  NOT NULL,
        route       jsonb,
        revision    bigint NOT NULL,
        created_at  timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, request_id)
    )
    """,
    "CREATE INDEX requests_by_age ON requests (created_at)",
    # The audit log: exactly one row per revision, append-only, in this database or in one of its own.
    """
    CREATE TABLE audit_log (
        revision    bigint PRIMARY KEY,
        change      bytea NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
    """,
)
