"""When the TLS certificates of this server end, for the metrics."""

from collections.abc import Callable, Mapping
from pathlib import Path

Stamp = tuple[int, int]


class CertificateExpiry:
    """The end of the certificates in PEM files, each with a name. A file is read again when it changes.

    ``expires`` returns when the first certificate of a PEM ends, in seconds since 1970, and raises ValueError for what
    is none. A file that cannot be read keeps the time it had, as the server goes on with what it had.
    """

    def __init__(self, files: Mapping[str, Path], expires: Callable[[bytes], float]) -> None:
        self._files = dict(files)
        self._expires = expires
        self._stamps: dict[str, Stamp] = {}
        self._times: dict[str, float] = {}

    def times(self) -> Mapping[str, float]:
        """Return the times by name; a file that could never be read is left out."""
        for name, path in self._files.items():
            try:
                found = path.stat()
                stamp = (found.st_ino, found.st_mtime_ns)
                if stamp != self._stamps.get(name):
                    self._times[name] = self._expires(path.read_bytes())
                    self._stamps[name] = stamp
            except (OSError, ValueError):
                continue
        return self._times
