"""The history in PostgreSQL: reading what was, and compacting what is old."""
