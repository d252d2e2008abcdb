"""PostgreSQL: the store, the relay's log and the audit log. The driver's errors end here."""
