"""A program with a channel that forks: ``python -m tests.support.channel_program ADDRESS FAMILY FORKS``.

The traffic of the family goes to two backends, so that the channel has a thread. The parent calls both, forks, and
calls again. Each child calls them through the channel of its parent, moves all traffic to the first, and waits until
the channel has let go of the other. It prints the answers, and how many backends each child was left with.
"""

import json
import multiprocessing
import sys
from typing import Any

import grpc

import pointsman
from pointsman.channels.channel import RouteChannel
from tests.support.waiting import eventually
from tests.support.xds_clients.backend import METHOD

SECONDS = 20.0
_channels: list[RouteChannel] = []


def answer() -> str:
    """Call once; return the name of the backend, or the code of the failure."""
    call: Any = _channels[0].unary_unary(METHOD)
    try:
        response: bytes = call(b"0", timeout=SECONDS)
    except grpc.RpcError as error:
        failed: Any = error
        return f"{failed.code()}: {failed.details()}"
    return response.decode()


def answers() -> list[str]:
    """Call until two backends have answered; return the answers."""
    found: set[str] = set()

    def two() -> bool:
        found.add(answer())
        return len(found) > 1

    eventually(two)
    return sorted(found)


def in_child(address: str, family: str) -> tuple[list[str], int]:
    """Return the answers, and how many backends are left when all traffic goes to one."""
    found = answers()
    with pointsman.Client(address) as client:
        client.set_traffic(family, {"v1": 10_000})
        backends = _channels[0]._backends._by_url
        eventually(lambda: answer() == "one" and len(backends) == 1)
        client.set_traffic(family, {"v1": 5_000, "v2": 5_000})
        return found, len(backends)


def main(address: str, family: str, forks: int) -> None:
    """Fork, and print what children and parent were answered."""
    context = multiprocessing.get_context("fork")
    with pointsman.Client(address) as client, pointsman.channel(family, client=client) as channel:
        assert isinstance(channel, RouteChannel)
        _channels.append(channel)
        reports: list[Any] = [answers()]
        for _ in range(forks):
            with context.Pool(1) as pool:
                reports += [pool.apply_async(in_child, (address, family)).get(3 * SECONDS), answers()]
        print(json.dumps(reports), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
