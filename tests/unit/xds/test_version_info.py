"""What the versions of responses say."""

import pytest

from pointsman_server.ports.store import Clock
from pointsman_server.xds.version_info import clock_of, version_info


def test_a_version_says_as_of_when_a_response_is_true() -> None:
    clock = Clock("7e0c2a14-93bd-4f6e-8d51-2b9f6c0a4e17", 2**63 - 1)
    version = version_info("00ff", clock)
    assert version.startswith("00ff.")
    assert clock_of(version) == clock


@pytest.mark.parametrize(
    "version", ["", "00ff", "00ff.", "00ff..e", "00ff.-1.e", "00ff.1_0.e", "00ff.²", "x." + "9" * 20]
)
def test_a_version_of_another_server_says_nothing(version: str) -> None:
    assert clock_of(version) is None
