"""Closing a peer's connection from outside of the transport."""

import socket
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import pytest

from pointsman_server.rpc.transport.disconnect import disconnect


def pairs(family: socket.AddressFamily, host: str, client: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    with closing(socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::")) as listener:
        for _ in range(2):
            theirs = socket.create_connection((client, listener.getsockname()[1]))
            ours, _ = listener.accept()
            yield theirs, ours


@pytest.mark.parametrize(
    ("family", "host", "client", "named"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1", "ipv4:127.0.0.1"),
        (socket.AF_INET6, "::1", "::1", f"ipv6:{quote('[::1]')}"),
        (socket.AF_INET6, "::", "127.0.0.1", "ipv4:127.0.0.1"),
    ],
)
def test_the_connection_of_the_peer_ends_and_no_other(family, host, client, named):
    (abuser, to_abuser), (other, to_other) = pairs(family, host, client)
    with closing(abuser), closing(to_abuser), closing(other), closing(to_other):
        assert disconnect(f"{named}:{abuser.getsockname()[1]}")

        assert (abuser.recv(1), to_abuser.recv(1)) == (b"", b"")
        other.sendall(b"x")
        assert to_other.recv(1) == b"x"


@pytest.mark.parametrize("peer", ["unix:", "unix:/run/x.sock", "ipv4:127.0.0.1:1", "ipv4:", "", "ipv4:127.0.0.1:x"])
def test_a_peer_that_is_not_there_is_no_error(peer):
    assert not disconnect(peer)
