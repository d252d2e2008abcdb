"""``pointsman traffic``: how the calls of a service are divided between its versions."""
