"""Leads the connections of a server to nodes of Redis Cluster through proxies: REDIS_WAYS has their ports as JSON."""

import json
import os
from collections.abc import Mapping
from typing import Any

ways = json.loads(os.environ.get("REDIS_WAYS", "{}"))
if ways:
    from redis.asyncio.connection import Connection

    arguments_of = Connection._connection_arguments

    def through_proxy(self: Connection) -> Mapping[str, Any]:
        arguments = dict(arguments_of(self))
        arguments["port"] = ways.get(str(arguments["port"]), arguments["port"])
        return arguments

    Connection._connection_arguments = through_proxy  # type: ignore[method-assign]
