"""Change sets, reverts and selections under faults: clients on a tenant of their own, and what they are held to."""
