"""etcd as a yardstick: one member, durable, in plaintext and with TLS, with as many cores as our server has."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from pointsman_server.embedded.tied import tied_to_this_process
from tests.bench import protobuf, tls
from tests.bench.children import ChildFailed
from tests.bench.driver import Job
from tests.bench.generators import LoadFailed, ask, drive
from tests.support.processes import free_port

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Etcd:
    """A member that answers."""

    pid: int
    address: str
    # Where it listens with TLS.
    tls_address: str

    def put(self, pairs: Iterable[tuple[bytes, bytes]], scratch: Path) -> None:
        """Write keys. Raises LoadFailed."""
        scratch.write_bytes(b"".join(protobuf.framed(protobuf.put_request(key, value)) for key, value in pairs))
        drive(Job(self.address, protobuf.PUT_METHOD, str(scratch), seconds=120, again=False))

    def ask(self, method: str, request: Path) -> bytes:
        """Make one call and return the answer. Raises LoadFailed."""
        return ask(Job(self.address, method, str(request), seconds=0))


@contextmanager
def running(directory: Path) -> Iterator[Etcd]:
    """Run a member on ``directory`` until the block ends. Raises ChildFailed."""
    directory.mkdir(mode=0o700)
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    secure = f"https://127.0.0.1:{free_port()}"
    pair = tls.write(directory)
    options = {
        "name": "bench",
        "data-dir": directory / "data",
        "listen-client-urls": f"{client},{secure}",
        "advertise-client-urls": client,
        "cert-file": pair.cert,
        "key-file": pair.key,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"bench={peer}",
        "log-level": "error",
    }
    command = [str(shutil.which("etcd")), *(f"--{name}={value}" for name, value in options.items())]
    log = directory / "etcd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            tied_to_this_process(command, death=SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"GOMAXPROCS": "1"},
            start_new_session=True,
        )
    try:
        member = Etcd(process.pid, client.removeprefix("http://"), secure.removeprefix("https://"))
        _wait(member, process, directory / "probe.bin", log)
        yield member
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(member: Etcd, process: subprocess.Popen[bytes], probe: Path, log: Path) -> None:
    probe.write_bytes(protobuf.framed(protobuf.range_request(b"probe", serializable=False)))
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(LoadFailed):
            member.ask(protobuf.RANGE_METHOD, probe)
            return
        time.sleep(0.1)
    raise ChildFailed(f"etcd does not serve; the end of its log:\n  {log.read_text(errors='replace')[-800:]}")
