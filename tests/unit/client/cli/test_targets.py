"""cli.targets: what stays on this machine."""

import pytest

from pointsman.cli.targets import is_local


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "localhost",
        "api.localhost:80",
        "127.0.0.1:50051",
        "127.9.9.9:1",
        "[::1]:50051",
        "::1",
        "dns:localhost:50051",
        "dns:///localhost:50051",
        "dns://127.0.0.53/localhost:50051",
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "ipv6:[::1]:1",
        "unix:/run/pointsman.sock",
        "unix:///run/pointsman.sock",
        "unix-abstract:pointsman",
    ],
)
def test_loopback_and_unix_sockets_do(target: str) -> None:
    assert is_local(target)


@pytest.mark.parametrize(
    "target",
    [
        "pointsman.internal:443",
        "pointsman.internal",
        "dns:///pointsman.internal:443",
        "dns://127.0.0.1/pointsman.internal:443",
        "10.0.0.7:50051",
        "0.0.0.0:50051",
        "[2001:db8::1]:50051",
        "ipv4:127.0.0.1:1,192.0.2.1:2",
        "xds:///pointsman",
        "localhost.evil.example:443",
        "",
    ],
)
def test_all_else_does_not(target: str) -> None:
    assert not is_local(target)
