"""What this process takes: CPU time, memory, file descriptors, and how late its event loop is."""

import asyncio
import time
from collections.abc import Mapping

from prometheus_client import ProcessCollector

from pointsman_server.telemetry.metrics import Metrics

INTERVAL_SECONDS = 0.5
# Counting the descriptors of ten thousand connections takes milliseconds.
USAGE_INTERVALS = 10


class ProcessMeter:
    """Measures this process. Where there is no /proc, as outside Linux, only the event loop is measured."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Not registered: with several workers a registry shows only what each of them has set.
        self._proc = ProcessCollector(registry=None)
        self._cpu = 0.0

    async def run(self) -> None:
        """Measure until cancelled: the delay of the event loop twice a second, the rest every five seconds."""
        while True:
            self.measure(_samples(self._proc))
            for _ in range(USAGE_INTERVALS):
                due = time.monotonic() + INTERVAL_SECONDS
                await asyncio.sleep(INTERVAL_SECONDS)
                self._metrics.event_loop_delay.observe(max(0.0, time.monotonic() - due))

    def measure(self, samples: Mapping[str, float]) -> None:
        """Set the metrics from samples of ``prometheus_client.ProcessCollector``."""
        if cpu := samples.get("process_cpu_seconds_total"):
            self._metrics.process_cpu.inc(max(0.0, cpu - self._cpu))
            self._cpu = cpu
        gauges = {
            "process_resident_memory_bytes": self._metrics.process_memory,
            "process_open_fds": self._metrics.process_open_fds,
            "process_max_fds": self._metrics.process_max_fds,
        }
        for name, gauge in gauges.items():
            if name in samples:
                gauge.set(samples[name])


def _samples(collector: ProcessCollector) -> dict[str, float]:
    return {sample.name: sample.value for family in collector.collect() for sample in family.samples}
