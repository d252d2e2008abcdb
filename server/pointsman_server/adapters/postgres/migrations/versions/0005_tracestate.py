"""What vendors of tracing add to the trace context of a change (W3C ``tracestate``).

Servers of the version before do not write the new column.
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; with a constant default that rewrites no row."""
    op.execute("ALTER TABLE route_changes ADD COLUMN tracestate text NOT NULL DEFAULT ''")
