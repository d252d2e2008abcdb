"""app.envoy_worker: how the server inside of Envoy starts and ends."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from pointsman_server.app.envoy_worker import Worker, _unless, exit_code_of, report
from pointsman_server.app.listening import ListenError
from pointsman_server.rpc.transport.certificates import BadCertificates
from pointsman_server.telemetry.log_level import SIGNAL


async def fail(error: Exception) -> None:
    raise error


async def test_why_it_could_not_start_is_said_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert await exit_code_of(fail(BadCertificates("one\ntwo"))) == 2
    assert capsys.readouterr().err == "pointsman-server: one\npointsman-server: two\n"
    assert await exit_code_of(fail(ListenError("taken"))) == 1


async def test_an_error_of_ours_is_1_and_the_end_of_the_work_0() -> None:
    assert await exit_code_of(fail(RuntimeError("a bug"))) == 1
    assert await exit_code_of(asyncio.sleep(0)) == 0


async def test_work_is_given_up_when_envoy_ends() -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.create_task(_unless(ended, work()))
    await asyncio.sleep(0)
    ended.set_result(None)

    assert await waiting is None
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_work_that_ends_first_gives_its_result() -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    assert await _unless(ended, asyncio.sleep(0, 50051)) == 50051


def test_pyvoy_takes_it_for_an_application_of_asgi_3() -> None:
    assert Worker._asgi_single_callable


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_blocked_signal_is_heard(name: signal.Signals) -> None:
    code = """
import asyncio, signal
from pointsman_server.app import envoy, envoy_worker
signal.pthread_sigmask(signal.SIG_BLOCK, envoy.SIGNALS)
async def main():
    stopping = asyncio.Event()
    envoy_worker._take_signals(stopping.set, lambda: print('switched', flush=True))
    print("waiting", flush=True)
    await asyncio.wait_for(stopping.wait(), 30)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == b"waiting\n"
            for _ in range(2):
                os.kill(process.pid, SIGNAL)
                assert process.stdout.readline() == b"switched\n"
            os.kill(process.pid, name)
            assert process.wait(30) == 0
        finally:
            process.kill()


PYVOY = "Exception in callback <_pyvoy.asgi.RecvFutureExecutor object at 0x7f7ba7c94ff0>"


@pytest.mark.parametrize(
    ("message", "error", "reported"),
    [
        (PYVOY, asyncio.InvalidStateError("invalid state"), 0),
        (PYVOY, ValueError("a bug"), 1),
        ("Exception in callback ours()", asyncio.InvalidStateError("invalid state"), 1),
        ("a task was destroyed", None, 1),
    ],
)
async def test_errors_of_the_event_loop_are_reported_but_for_events_of_calls_that_have_ended(
    message: str, error: Exception | None, reported: int, caplog: pytest.LogCaptureFixture
) -> None:
    context: dict[str, Any] = {"message": message} | ({"exception": error} if error else {})
    report(asyncio.get_running_loop(), context)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * reported
