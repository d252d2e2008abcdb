"""The ``pointsman`` command line. It needs the extra: ``pip install 'pointsman[cli]'``."""

import gc
import os
import sys
from importlib.util import find_spec

# Loading makes many objects, and all of them stay: to look for garbage among them takes a sixth of a start.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000
_EXTRA = ("rich", "typer", "yaml")


def main() -> None:
    """Run the command line; the entry point of ``pointsman``."""
    # The log of gRPC itself would mix with our errors on stderr, which scripts read. It must be set before the import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    # Asked for, as each is loaded only by the commands that need it, perhaps with half of the answer written.
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"pointsman: the command line needs {missing[0]}: run pip install 'pointsman[cli]'\n")
        sys.exit(2)
    from pointsman.cli.app import app
    from pointsman.cli.output.streams import prepare

    prepare()
    app()
