"""The brokers of a run, as one: what happens to Kafka happens to all of them, unless a fault picks one."""

from pathlib import Path

from tests.support import kafka
from tests.support.kafka import KafkaBroker


class Brokers:
    """One cluster of ``size`` brokers."""

    def __init__(self, directory: Path, size: int) -> None:
        self.each: list[KafkaBroker] = kafka.cluster(directory, size)

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all."""
        return ",".join(broker.bootstrap_servers for broker in self.each)

    def start(self) -> None:
        """Start all, without waiting."""
        for broker in self.each:
            broker.start(wait=False)

    def wait_ready(self) -> None:
        """Wait until each answers."""
        for broker in self.each:
            broker.wait_ready()

    def kill(self) -> None:
        """Send SIGKILL to all, and wait for their end. The data stay."""
        for broker in self.each:
            broker.kill()

    def pause(self) -> None:
        """Keep all from answering."""
        for broker in self.each:
            broker.pause()

    def resume(self) -> None:
        """Let all go on."""
        for broker in self.each:
            broker.resume()

    def stop(self, seconds: float) -> None:
        """End all, each within ``seconds``."""
        for broker in self.each:
            broker.stop(seconds)
