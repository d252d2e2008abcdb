"""Why Redis fails us, in words for operators: the texts of health checks and of log lines."""

import re

from redis.exceptions import ResponseError

from pointsman_server.adapters.redis.discovery import NotFound, is_tls_failure

# By the error code of Redis, which begins a reply, or stands in the middle where a script was refused. What it means,
# and what to do.
_BY_CODE = {
    "READONLY": "is a read-only replica: REDIS_URL must name the primary",
    "MASTERDOWN": "is a replica without its primary: REDIS_URL must name the primary",
    "OOM": "is full and evicts nothing: raise maxmemory, or set maxmemory-policy to allkeys-lru",
    "NOREPLICAS": "refuses writes: it has fewer replicas than min-replicas-to-write demands",
    "MISCONF": "refuses writes: it cannot save to its disk",
    "LOADING": "is loading its data",
    "BUSY": "is busy with another client's script",
    "NOAUTH": "requires a password: REDIS_URL has none",
    "WRONGPASS": "refuses the user or the password of REDIS_URL",
    "CLUSTERDOWN": "is of a Redis Cluster that is down: CLUSTER INFO says more",
    "TRYAGAIN": "is moving a slot to another node",
    **dict.fromkeys(
        ("CROSSSLOT", "MOVED", "ASK"),
        "is Redis Cluster: REDIS_URL must begin with redis+cluster:// or rediss+cluster://",
    ),
}
_CODE = re.compile(rf"\b(?:{'|'.join(_BY_CODE)})\b")
# Redis has one code for these, and none where a command within a script is refused.
_BY_TEXT = (
    (
        re.compile("cluster support disabled"),
        "is not Redis Cluster: REDIS_URL must begin with redis:// or rediss://",
    ),
    (re.compile(r"run the 'cluster"), "does not let the user of REDIS_URL ask for the nodes (CLUSTER SLOTS)"),
    (re.compile(r"run the 'asking"), "does not let the user of REDIS_URL follow a slot that moves (ASKING)"),
    (re.compile(r"run the 'sentinel"), "does not let our user ask for the primary (SENTINEL MASTER)"),
    (
        re.compile(r"run the '(evalsha|eval|script)"),
        "does not let the user of REDIS_URL run scripts (EVALSHA, SCRIPT LOAD)",
    ),
    (re.compile(r"access .*\bkeys?\b"), "does not let the user of REDIS_URL use the keys of POINTSMAN_REDIS_PREFIX"),
    (
        re.compile(r"can't run this command|permissions to run"),
        "does not let the user of REDIS_URL run a command that the cache needs",
    ),
)


def explain(error: Exception) -> str:
    """Say what is wrong, as what follows the name of a Redis. ``error`` is what redis-py or the system raised."""
    if isinstance(error, NotFound):
        return str(error)
    if is_tls_failure(error):
        return f"fails in TLS: {error}"
    code = getattr(error, "status_code", None)
    if code is None and not isinstance(error, ResponseError):
        return "does not answer"
    text = str(error)
    known = _CODE.search(f"{code} {text}")
    if known:
        return _BY_CODE[known[0]]
    return next((words for pattern, words in _BY_TEXT if pattern.search(text)), f"fails: {text}")
