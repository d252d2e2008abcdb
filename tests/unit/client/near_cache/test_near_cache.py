from pointsman import Client


def test_it_begins_and_ends_with_its_block_and_with_its_client() -> None:
    with Client("127.0.0.1:1") as client:
        with client.cached(tenants=["team-a"], name="one") as cache:
            assert client._session.near_caches == (cache,)
            assert cache.name == "one"
        assert client._session.near_caches == ()
        other = client.cached()
        other.start()
    assert other._closed
