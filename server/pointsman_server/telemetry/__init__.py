"""What operators see of the server: logs, metrics, traces."""

import sys
from importlib import import_module


def _load(name: str, *, without: str) -> None:
    """Load a module that takes ``without`` along wherever it is installed, and works as well when it is not."""
    there = {without: sys.modules[without]} if without in sys.modules else {}
    sys.modules[without] = None  # type: ignore[assignment] # so says the documentation of sys.modules
    try:
        import_module(name)
    finally:
        del sys.modules[without]
        sys.modules.update(there)


# rich and its highlighter are 4 MB, for a way to show tracebacks that we do not use.
_load("structlog", without="rich")
