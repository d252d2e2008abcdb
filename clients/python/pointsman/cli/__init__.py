"""The ``pointsman`` command line. It needs the extra: ``pip install 'pointsman[cli]'``."""

import os
import sys

_EXTRA = {"rich", "typer", "yaml"}


def main() -> None:
    """Run the command line; the entry point of ``pointsman``."""
    # The log of gRPC itself would mix with our errors on stderr, which scripts read. It must be set before the import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from pointsman.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(f"pointsman: the command line needs {error.name}: run pip install 'pointsman[cli]'\n")
        sys.exit(2)
    app()
