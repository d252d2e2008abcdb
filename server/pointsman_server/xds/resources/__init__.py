"""Pure functions from targets to resources, for each kind of client. See ``docs/xds.md`` for what each client does."""
