"""Run a server process: load what it needs, then serve, and end with an exit code that says what was wrong."""

import logging
import os
import sys
from collections.abc import Callable

from pointsman_server.cli.common import fail
from pointsman_server.runtime.gc_freeze import gc_disabled_then_frozen


def launch(work: Callable[[], None], *, with_kafka: bool) -> None:
    """Load the server, then do ``work``, which runs it. Ends the process with 1 or 2 when it cannot start."""
    with gc_disabled_then_frozen():
        # Not alembic, which is a sixth of the memory of a server: only `dev` and `migrate` migrate.
        from pointsman_server.adapters import kafka
        from pointsman_server.adapters.files.policy import PolicyError
        from pointsman_server.app import application
        from pointsman_server.app.grpc_server import ListenError
        from pointsman_server.embedded import EngineError
        from pointsman_server.rpc.transport.server import TransportUnavailable
        from pointsman_server.rpc.transport.tls import BadCertificates

        del application  # loaded here, while the garbage collector is off
        if with_kafka:
            kafka.load()

    try:
        work()
    except (ListenError, EngineError) as error:
        fail(str(error))
    except (TransportUnavailable, PolicyError, BadCertificates) as error:
        fail(str(error), code=2)
    if with_kafka:
        _leave_stuck_threads()


def _leave_stuck_threads() -> None:
    """Exit now if librdkafka keeps a thread, which the interpreter would wait for. Called when all work is done."""
    from pointsman_server.adapters.kafka.group_consumer import stuck_threads

    if stuck_threads():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
