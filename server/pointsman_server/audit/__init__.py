"""The audit log: its hash chain, and the backfill from the history."""
