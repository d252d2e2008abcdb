from pointsman_server.adapters.redis.client import connect


def test_a_client_never_retries_and_bounds_only_the_connecting() -> None:
    pool = connect("redis://redis.internal:7000/3", 0.25).connection_pool
    given = pool.connection_kwargs
    assert (given["host"], given["port"], given["db"]) == ("redis.internal", 7000, 3)
    assert (given["socket_connect_timeout"], given["socket_timeout"]) == (0.25, None)
    assert given["retry"].get_retries() == 0
    assert given["retry"]._backoff.compute(1) == 0
    assert given["health_check_interval"] == 0
    assert pool.max_connections == 64
