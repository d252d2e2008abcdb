"""A signal changes the level of the log of a server that runs, and of each of its workers."""

import signal

import psutil
import pytest

from pointsman import Client, RouteNotFound
from tests.support.processes import ServerProcess, free_port, serve, server_process
from tests.support.waiting import eventually


def logs_calls(process: ServerProcess, address: str) -> bool:
    """Make a call on a connection of its own; say whether it was logged."""
    before = len(process.log("call"))
    with Client(address) as client, pytest.raises(RouteNotFound) as refused:
        client.resolve("team-a/payments/prod/v1")
    named = [line for line in process.log("call")[before:] if line["request_id"] == refused.value.request_id]
    return bool(named)


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_sigusr2_turns_debug_on_and_off(transport: str, database_url: str, redis_url: str) -> None:
    environ = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "POINTSMAN_ROLES": "api"}
    with serve("--transport", transport, **environ) as (process, address, _):
        assert not logs_calls(process, address)

        process.process.send_signal(signal.SIGUSR2)
        assert process.wait_for_log("log level changed")["log_level"] == "debug"
        assert logs_calls(process, address)

        process.process.send_signal(signal.SIGUSR2)
        assert process.wait_for_log("log level changed", 2)["log_level"] == "info"
        assert not logs_calls(process, address)
        assert process.stop() == 0


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_workers_change_together_and_one_that_starts_later_has_the_same(
    transport: str, database_url: str, redis_url: str
) -> None:
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "POINTSMAN_ROLES": "api",
        "POINTSMAN_LISTEN": f"127.0.0.1:{free_port()}",
        "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{free_port()}",
    }
    with server_process("serve", "--workers", "2", "--transport", transport, **environ) as process:
        process.wait_for_log("serving", 2)
        address = environ["POINTSMAN_LISTEN"]
        process.process.send_signal(signal.SIGUSR2)
        # The supervisor and its two workers.
        process.wait_for_log("log level changed", 3)
        assert all(logs_calls(process, address) for _ in range(8))

        for worker in _children(process):
            worker.kill()
        process.wait_for_log("serving", 4)
        assert eventually(lambda: logs_calls(process, address))
        assert all(logs_calls(process, address) for _ in range(8))

        process.process.send_signal(signal.SIGUSR2)
        process.wait_for_log("log level changed", 6)
        assert not any(logs_calls(process, address) for _ in range(8))
        assert process.stop() == 0


def _children(process: ServerProcess) -> list[psutil.Process]:
    return psutil.Process(process.process.pid).children()
