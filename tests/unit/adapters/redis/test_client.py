from pointsman_server.adapters.redis.client import CONNECT_SECONDS, make_pool


def test_a_pool_never_retries_and_bounds_only_the_connecting() -> None:
    pool = make_pool(("redis.internal", 7000), {"db": 3, "password": "secret", "socket_timeout": 9})
    given = pool.connection_kwargs
    assert (given["host"], given["port"], given["db"], given["password"]) == ("redis.internal", 7000, 3, "secret")
    assert (given["socket_connect_timeout"], given["socket_timeout"]) == (CONNECT_SECONDS, None)
    assert given["retry"].get_retries() == 0
    assert given["retry"]._backoff.compute(1) == 0
    assert given["health_check_interval"] == 0
    assert pool.max_connections == 64


def test_a_socket_of_this_machine_has_no_host() -> None:
    assert "host" not in make_pool(("localhost", 6379), {"path": "/run/redis.sock"}).connection_kwargs
