"""Commands that look after PostgreSQL."""
