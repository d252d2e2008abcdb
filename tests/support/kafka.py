"""Real Apache Kafka for tests: brokers in KRaft mode, from the jars of Maven Central.

``python -m tests.support.kafka`` fetches the jars (once; with Maven, or else with jgo) and trains the JVM's class
archive, which halves the start time of a broker. A broker listens on loopback, has a directory of its own, and ends
with this process.
"""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.pause import pause, resume
from tests.support.tools import Wheel, program, provide

VERSION = "4.3.1"
HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1] / ".cache" / "kafka" / VERSION
JARS = HOME / "jars"
# What Kafka's own formatter writes: the features of a new cluster, the same for every node.
BOOTSTRAP = HOME / "bootstrap.checkpoint"
CLASSES = HOME / "classes.jsa"
POM = HERE / "kafka-pom.xml"
COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
JGO = Wheel("jgo==3.2.0")
# Run with the wheel on its path. Arguments: coordinates, directory for the jars.
RESOLVE = """\
import shutil, sys
import jgo
for artifact in jgo.resolve(sys.argv[1]):
    shutil.copy(artifact.resolve(), sys.argv[2])
"""
# A test broker runs for seconds: a short start matters more than throughput.
JVM = ("-Xms64m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xlog:disable")
START_SECONDS = 60.0
STOP_SECONDS = 15.0

# The broker session is short: a killed broker can register again only after its old session has expired.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.enable=false
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
"""

META_PROPERTIES = """\
version=1
cluster.id={cluster}
node.id={node}
directory.id={directory}
"""

LOG4J_PROPERTIES = """\
rootLogger.level=warn
rootLogger.appenderRef.file.ref=file
appender.file.type=File
appender.file.name=file
appender.file.fileName={file}
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c - %m%n
"""

# Its stdin ends with this process, also by SIGKILL. Then it kills the broker and deletes its data.
WATCHDOG = 'cat >/dev/null; kill -9 "$0"; rm -rf "$1"'


def available() -> str | None:
    """Return why no broker can run here; None when one can."""
    return None if program("java") and BOOTSTRAP.exists() else "run `make tools` first"


def fetch() -> Path:
    """Install Java, the jars and the class archive where they are missing, and return their directory."""
    provide("java")
    if not BOOTSTRAP.exists():
        JARS.mkdir(parents=True, exist_ok=True)
        _fetch_jars()
        _train()
    return HOME


def _fetch_jars() -> None:
    command = ["mvn", "-q", "-B", "-f", str(POM), COPY_JARS, f"-DoutputDirectory={JARS}"]
    environment = None
    if shutil.which("mvn") is None:
        command = [sys.executable, "-c", RESOLVE, "+".join(_coordinates()), str(JARS)]
        environment = os.environ | {"PYTHONPATH": str(JGO.install())}
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)


def _coordinates() -> list[str]:
    """Read the direct dependencies of the POM, each as group:artifact:version."""
    tags = "".join(rf"\s*<{tag}>(.+)</{tag}>" for tag in ("groupId", "artifactId", "version"))
    return [":".join(found) for found in re.findall(f"<dependency>{tags}", POM.read_text())]


def _train() -> None:
    """Format one broker with Kafka's own tool, run it once, and keep its checkpoint and its loaded classes."""
    with tempfile.TemporaryDirectory(prefix="kafka-train-") as directory:
        broker = KafkaBroker(Path(directory))
        format_command = broker.java("kafka.tools.StorageTool", "format", "-t", _uuid(), "-c", broker.config)
        subprocess.run(format_command, check=True, stdout=subprocess.DEVNULL)
        broker.start(f"-XX:ArchiveClassesAtExit={CLASSES}")
        broker.stop(seconds=START_SECONDS)
        # Last, and atomically: this file means that everything else is there.
        shutil.copy(broker.data / BOOTSTRAP.name, BOOTSTRAP.with_suffix(".new"))
        BOOTSTRAP.with_suffix(".new").rename(BOOTSTRAP)


@dataclass(frozen=True)
class More:
    """What a broker has besides: the protocol of each further listener, settings, and arguments of the JVM."""

    listeners: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    jvm: Sequence[str] = ()


class KafkaBroker:
    """One broker that is also a controller, alone or as one of ``voters``.

    Its ports and its data outlive the process: after ``kill`` and ``start`` it is the same broker.
    """

    def __init__(
        self,
        directory: Path,
        *,
        node: int = 1,
        voters: dict[int, int] | None = None,
        cluster: str | None = None,
        more: "More | None" = None,
    ) -> None:
        """Prepare ``directory``, which must exist. ``voters``: controller port by node, for a cluster of several."""
        voters = voters or {node: free_port()}
        more = more or More()
        self.port = free_port()
        self.bootstrap_servers = f"127.0.0.1:{self.port}"
        self.ports = {name: free_port() for name in more.listeners}
        self._jvm = more.jvm
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "kafka.log"
        self.config = directory / "server.properties"
        self._log4j = directory / "log4j2.properties"
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        server = SERVER_PROPERTIES.format(
            node=node,
            voters=",".join(f"{voter}@127.0.0.1:{port}" for voter, port in voters.items()),
            port=self.port,
            controller_port=voters[node],
            listeners="".join(f",{name}://127.0.0.1:{port}" for name, port in self.ports.items()),
            protocols="".join(f",{name}:{protocol}" for name, protocol in more.listeners.items()),
            data=self.data,
            replicas=min(3, len(voters)),
        )
        self.config.write_text(server + "".join(f"{name}={value}\n" for name, value in more.settings.items()))
        self._log4j.write_text(LOG4J_PROPERTIES.format(file=self.log))
        if BOOTSTRAP.exists():
            self._format(node, cluster or _uuid())

    def _format(self, node: int, cluster: str) -> None:
        """Do what ``kafka.tools.StorageTool format`` does, without a JVM."""
        self.data.mkdir()
        shutil.copy(BOOTSTRAP, self.data)
        meta = META_PROPERTIES.format(cluster=cluster, node=node, directory=_uuid())
        (self.data / "meta.properties").write_text(meta)

    def java(self, *arguments: str | Path) -> list[str]:
        """Return the command that runs a class of Kafka with ``arguments``."""
        # In a fixed order: the class archive is valid only for exactly this class path.
        classpath = ":".join(str(jar) for jar in sorted(JARS.glob("*.jar")))
        log4j = f"-Dlog4j2.configurationFile={self._log4j}"
        return [str(provide("java")), *JVM, *self._jvm, log4j, "-cp", classpath, *map(str, arguments)]

    def start(self, archive: str = f"-XX:SharedArchiveFile={CLASSES}", *, wait: bool = True) -> None:
        """Start the process and, unless ``wait`` is off, wait until it answers."""
        command = self.java("kafka.Kafka", self.config)
        command.insert(1, archive)
        with (self.directory / "output.log").open("ab") as output:
            # In a session of its own, so that Ctrl-C reaches only the tests, which then stop it.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._watchdog = subprocess.Popen(
            ["sh", "-c", WATCHDOG, str(self._process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until the broker answers; raise RuntimeError with its log when it dies or takes longer."""
        deadline = time.monotonic() + seconds
        while not self._listens() or not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kafka did not start:\n{self.last_words()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _answers(self) -> bool:
        with suppress(KafkaException):
            return bool(admin(self.bootstrap_servers).list_topics(timeout=5).brokers)
        return False

    def last_words(self) -> str:
        """Return the end of the broker's output and log."""
        files = (self.directory / "output.log", self.log)
        return "\n".join(file.read_text(errors="replace")[-4000:] for file in files if file.exists())

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process. Raises RuntimeError when the broker is not running."""
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Send SIGTERM, and SIGKILL when it takes longer than ``seconds``. Does nothing when it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL and wait for the end. The data stay."""
        if self._process is None:
            return
        self._process.kill()
        self._dismiss_watchdog()
        self._process.wait()
        self._process = None

    def _dismiss_watchdog(self) -> None:
        # Before the broker is reaped, after which its pid may belong to another process.
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None

    def pause(self) -> None:
        """Connections stay open, and nothing is answered."""
        pause(self.process)

    def resume(self) -> None:
        """Send SIGCONT."""
        resume(self.process)

    def restart(self) -> None:
        """Stop and start on the same ports and data."""
        self.stop()
        self.start()


def cluster(directory: Path, size: int, more: More | None = None) -> list[KafkaBroker]:
    """Prepare ``size`` brokers of one cluster. Start each with ``wait=False``, then ``wait_ready`` for each."""
    voters = {node: free_port() for node in range(1, size + 1)}
    name = _uuid()
    brokers = []
    for node in voters:
        home = directory / f"broker-{node}"
        home.mkdir()
        brokers.append(KafkaBroker(home, node=node, voters=voters, cluster=name, more=more))
    return brokers


@contextmanager
def running_broker() -> Iterator[KafkaBroker]:
    """Run one broker in a temporary directory until the block ends. Fetches Kafka where it is missing."""
    fetch()
    with tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True) as directory:
        broker = KafkaBroker(Path(directory))
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()


@contextmanager
def mock_cluster() -> Iterator[str]:
    """Run librdkafka's mock cluster in this process, as ``dev`` does, and give its address."""
    client = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = client.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    client.close()


def read_all(bootstrap_servers: str, topic: str, seconds: float = 20.0) -> list[Message]:
    """Return all messages of ``topic`` up to its current end, partition by partition, without a consumer group."""
    settings = {"bootstrap.servers": bootstrap_servers, "group.id": "unused", "enable.auto.commit": False}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "log_level": 0})
    messages = []
    try:
        for number in consumer.list_topics(topic, timeout=seconds).topics[topic].partitions:
            place = TopicPartition(topic, number, 0)
            high = _end(consumer, place, seconds)
            consumer.assign([place])
            messages += consumer.consume(high, timeout=seconds) if high else []
    finally:
        consumer.close()
    return messages


def _end(consumer: Consumer, place: TopicPartition, seconds: float) -> int:
    """Return the end offset of a partition. Retries while a restarted broker does not lead the partition yet."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=seconds)[1])
        except KafkaException:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def admin(bootstrap_servers: str) -> AdminClient:
    """Return an admin client that logs nothing."""
    config: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 0, "error_cb": lambda _error: None}
    return AdminClient(config)


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _uuid() -> str:
    """Return an id as Kafka writes them: URL-safe base64 without padding, not starting with a dash."""
    text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return _uuid() if text.startswith("-") else text


def main() -> int:
    """Fetch Kafka and print its directory."""
    print(fetch())
    return 0


if __name__ == "__main__":
    sys.exit(main())
