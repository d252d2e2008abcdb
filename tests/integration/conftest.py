from collections.abc import Iterator

import pytest

from tests.support import kafka


@pytest.fixture(scope="session")
def kafka_mock() -> Iterator[str]:
    """The address of librdkafka's own local cluster."""
    with kafka.mock_cluster() as bootstrap_servers:
        yield bootstrap_servers
