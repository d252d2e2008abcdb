"""Which release of the client this is."""


def client_version() -> str:
    """Return the version of the installed distribution, or ``0+unknown`` in a tree that was never installed."""
    # Late: it brings a parser of e-mail along, which an import alone does not need.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pointsman")
    except PackageNotFoundError:
        return "0+unknown"
