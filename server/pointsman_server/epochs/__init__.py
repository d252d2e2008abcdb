"""The epoch of the database: detect a restore, and refuse what belongs to another epoch."""
