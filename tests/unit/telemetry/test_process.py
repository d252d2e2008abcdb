"""telemetry.process: what a process takes, from the samples of the Prometheus client."""

import asyncio
import time

import pytest

from pointsman_server.telemetry import process
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.process import ProcessMeter
from tests.support.waiting import becomes


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


def test_cpu_time_counts_what_was_used_since_the_last_time() -> None:
    metrics = Metrics()
    meter = ProcessMeter(metrics)
    for total in (2.5, 2.5, 4.0):
        meter.measure({"process_cpu_seconds_total": total})
    assert value(metrics, "process_cpu_seconds_total") == 4.0


def test_memory_and_descriptors_are_those_of_now() -> None:
    metrics = Metrics()
    meter = ProcessMeter(metrics)
    for memory in (5e8, 4e8):
        meter.measure({"process_resident_memory_bytes": memory, "process_open_fds": 12, "process_max_fds": 1024})
    assert value(metrics, "process_resident_memory_bytes") == 4e8
    assert value(metrics, "process_open_fds") == 12
    assert value(metrics, "process_max_fds") == 1024


def test_without_proc_nothing_is_set() -> None:
    metrics = Metrics()
    ProcessMeter(metrics).measure({})
    assert value(metrics, "process_resident_memory_bytes") == 0


async def test_this_process_is_measured_and_a_blocked_loop_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "INTERVAL_SECONDS", 0.01)
    metrics = Metrics()

    async def delayed() -> bool:
        return value(metrics, "pointsman_event_loop_delay_seconds_count") > 0

    running = asyncio.create_task(ProcessMeter(metrics).run())
    await asyncio.sleep(0)
    time.sleep(0.12)  # noqa: ASYNC251 - blocks the loop on purpose
    assert await becomes(delayed)
    running.cancel()

    assert value(metrics, "pointsman_event_loop_delay_seconds_sum") > 0.1
    assert value(metrics, "process_open_fds") > 0
    assert value(metrics, "process_cpu_seconds_total") > 0
    assert value(metrics, "process_resident_memory_bytes") > 1e6
