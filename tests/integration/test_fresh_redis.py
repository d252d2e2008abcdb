"""The empty Redis databases that tests get."""

import redis

from tests.support.engines import REDIS_DATABASES, fresh_redis


def test_a_database_with_clients_is_not_given_again(engines) -> None:
    used = fresh_redis(engines.urls["REDIS_URL"])
    with redis.Redis.from_url(used) as client:
        client.set("a", "b")
        given = {fresh_redis(engines.urls["REDIS_URL"]) for _ in range(3 * REDIS_DATABASES)}
        assert used not in given
        assert client.get("a") == b"b"
    assert len(given) > 1
