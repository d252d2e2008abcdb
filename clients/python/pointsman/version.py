"""Which release of the client this is."""

from importlib.metadata import PackageNotFoundError, version


def client_version() -> str:
    """Return the version of the installed distribution, or ``0+unknown`` in a tree that was never installed."""
    try:
        return version("pointsman")
    except PackageNotFoundError:
        return "0+unknown"
