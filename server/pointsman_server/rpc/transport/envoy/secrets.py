"""Gives Envoy the TLS certificates, and gives them again when the files change (SDS by files).

Envoy rereads a resource when its file is replaced by a rename, and applies it when its text differs. So each time the
certificates change, the resources name new links to them: Envoy reads the operator's files, and the key is written
nowhere else. Open connections keep the certificates of their handshake.
https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret
"""

import asyncio
import json
import shutil
import time
from pathlib import Path

from pointsman_server.rpc.transport.certificates import (
    CHECK_SECONDS,
    BadCertificates,
    CertificateCheck,
    Files,
    RenewalLog,
    Stamp,
    read,
    stamp_of,
)
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

RESOURCE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
SERVER, CLIENT_CA = "server", "client-ca"


def directory_in(private: Path) -> Path:
    """Return where the resources are, in the directory that is private to this server."""
    return private / "tls"


class Secrets:
    """Writes the resources into ``directory``, which is private to this server. ``check`` refuses broken files."""

    def __init__(self, files: Files, directory: Path, check: CertificateCheck) -> None:
        self._files = files
        self._directory = directory
        self._check = check
        self._renewals = RenewalLog(log, files)

    def publish(self) -> None:
        """Check the files, and give them to Envoy. Raises BadCertificates and OSError."""
        # Before the files are read: a change during this is one more change.
        stamp = stamp_of(self._files)
        read(self._files, self._check)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        before = sorted(path for path in self._directory.iterdir() if path.is_dir())
        links = self._link(self._directory / f"{time.time_ns()}")
        certificate = {"certificate_chain": _file(links["cert"]), "private_key": _file(links["key"])}
        self._write({"name": SERVER, "tls_certificate": certificate})
        if "client_ca" in links:
            self._write({"name": CLIENT_CA, "validation_context": {"trusted_ca": _file(links["client_ca"])}})
        self._published.write_text(_text(stamp))
        # The last one is kept: Envoy may be reading it.
        for old in before[:-1]:
            shutil.rmtree(old, ignore_errors=True)

    async def watch(self) -> None:
        """Publish the files whenever they change. Broken files are logged once, and the old ones stay in force."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await asyncio.to_thread(self.renew)

    def renew(self) -> None:
        """Publish the files if they differ from those published, also by another process: the one before Envoy."""
        if _text(stamp_of(self._files)) == self._last_published():
            return
        try:
            self.publish()
        except (BadCertificates, OSError) as error:
            # The next call tries again: the files may be half written.
            self._renewals.refused(error)
            return
        self._renewals.renewed()

    @property
    def _published(self) -> Path:
        return self._directory / "published"

    def _last_published(self) -> str:
        try:
            return self._published.read_text()
        except OSError:
            return ""

    def _link(self, directory: Path) -> dict[str, Path]:
        directory.mkdir()
        sources = {"cert": self._files.cert, "key": self._files.key, "client_ca": self._files.client_ca}
        links: dict[str, Path] = {}
        for name, source in sources.items():
            if source is not None:
                links[name] = directory / f"{name}.pem"
                links[name].symlink_to(source.absolute())
        return links

    def _write(self, secret: dict[str, object]) -> None:
        target = self._directory / f"{secret['name']}.json"
        written = target.with_suffix(".new")
        written.write_text(json.dumps({"resources": [{"@type": RESOURCE, **secret}]}))
        written.replace(target)


def _file(path: Path) -> dict[str, str]:
    return {"filename": str(path)}


def _text(stamp: Stamp) -> str:
    return json.dumps(stamp)
