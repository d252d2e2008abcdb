"""Values and rules without I/O: routes, errors, identities, grants, keys, their encoding."""
