"""Error replies of Redis 6.2 and 7.0, and their explanations."""

import ssl

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError

from pointsman_server.adapters.redis.diagnostics.refusals import explain
from pointsman_server.adapters.redis.discovery import NotFound

SCRIPT_6 = "ERR Error running script (call to f_7f1d): @user_script:3: @user_script: 3: "
SCRIPT_7 = " script: 7f1d, on @user_script:3."
CANNOT_RUN = "The user executing the script can't run this command or subcommand"
RIGHT = "does not let the user of REDIS_URL"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (SCRIPT_6 + "-READONLY You can't write against a read only replica.", "is a read-only replica"),
        ("READONLY You can't write against a read only replica." + SCRIPT_7, "is a read-only replica"),
        (SCRIPT_6 + "-OOM command not allowed when used memory > 'maxmemory'.", "is full and evicts nothing"),
        ("OOM command not allowed when used memory > 'maxmemory'." + SCRIPT_7, "is full and evicts nothing"),
        (SCRIPT_6 + "-NOREPLICAS Not enough good replicas to write.", "fewer replicas than min-replicas-to-write"),
        ("NOREPLICAS Not enough good replicas to write." + SCRIPT_7, "fewer replicas than min-replicas-to-write"),
        ("MISCONF Redis is configured to save RDB snapshots, but ...", "cannot save to its disk"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "without its primary"),
        ("LOADING Redis is loading the dataset in memory", "is loading its data"),
        ("BUSY Redis is busy running a script.", "is busy with another client's script"),
        ("CLUSTERDOWN Hash slot not served", "is of a Redis Cluster that is down"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "is Redis Cluster"),
        ("MOVED 3999 127.0.0.1:6381", "is Redis Cluster"),
        ("ERR This instance has cluster support disabled", "is not Redis Cluster: REDIS_URL must begin with redis://"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "is moving a slot to another node"),
        ("NOPERM User app has no permissions to run the 'cluster|slots' command", f"{RIGHT} ask for the nodes"),
        ("NOPERM User app has no permissions to run the 'asking' command", f"{RIGHT} follow a slot that moves"),
        ("NOPERM User s has no permissions to run the 'sentinel|master' command", "does not let our user ask for the"),
        ("NOAUTH Authentication required.", "REDIS_URL has none"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refuses the user or the password"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", f"{RIGHT} run scripts"),
        ("NOPERM User app has no permissions to run the 'script|load' command", f"{RIGHT} run scripts"),
        ("NOPERM this user has no permissions to access one of the keys used as arguments", f"{RIGHT} use the keys"),
        (SCRIPT_6 + CANNOT_RUN, f"{RIGHT} run a command that the cache needs"),
        ("ERR " + CANNOT_RUN + SCRIPT_7, f"{RIGHT} run a command that the cache needs"),
        ("NOPERM this user has no permissions to run the 'select' command", f"{RIGHT} run a command"),
        ("ERR something new", "fails: something new"),
    ],
)
def test_a_reply_is_explained(reply: str, words: str) -> None:
    assert words in explain(BaseParser.parse_error(reply))


def test_a_failed_handshake_is_told() -> None:
    error = RedisConnectionError("Error 1 connecting to redis:6379. certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    assert explain(error).startswith("fails in TLS: ")
    assert explain(NotFound("knows no primary")) == "knows no primary"


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError(111, "refused"), RedisConnectionError("x")])
def test_without_a_reply_there_is_no_answer(error: Exception) -> None:
    assert explain(error) == "does not answer"
