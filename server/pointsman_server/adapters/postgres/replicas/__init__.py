"""Reads from replicas of the database, each of which the primary confirms.

A replica follows the primary, and may be behind by any time. It may also belong to another database or, after a
failover, to another primary. What it returns is used only if the primary then confirms it:

- **It is of this history**: at the revision of the replica, the primary has the same change, in the same epoch. The
  history is append-only, so everything before is the same, too.
- **It is still true**: none of what was read has changed since that revision.

Then the result is the state of the primary at the moment of the confirmation, and gets the revision of the primary. So
no read is older than its call (``ports.RouteStore``). Otherwise the primary is read. A confirmation costs the primary
one row by its number, and the keys of the changes that the replica lacks, in place of up to a thousand routes.

Keys (``load``), pages (``list_routes``) and snapshots of the table (``scan``) are read so. The clock, the history, and
all that belongs to a mutation are read from the primary.
"""
