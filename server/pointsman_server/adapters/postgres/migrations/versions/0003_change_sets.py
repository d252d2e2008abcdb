"""Which changes were made together.

Servers of the version before do not write the new column: each change of theirs is a set of its own.
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; with a constant default that rewrites no row."""
    op.execute("ALTER TABLE route_changes ADD COLUMN change_set_end bigint NOT NULL DEFAULT 0")
