"""Run a server process: load what it needs, then serve, and end with an exit code that says what was wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pointsman_server.cli.common import fail


def launch(work: Callable[[], None], *, with_kafka: bool, with_xds: bool = False) -> None:
    """Load the server, then do ``work``, which runs it. Ends the process with 1 or 2 when it cannot start."""
    from pointsman_server.app.preload import preload

    preload(with_kafka=with_kafka, with_xds=with_xds)
    with start_errors():
        work()
    if with_kafka:
        _leave_stuck_threads()


@contextmanager
def start_errors() -> Iterator[None]:
    """End the process with 1 or 2, and a sentence, when a server cannot start."""
    from pointsman_server.app.start_errors import START_ERRORS, exit_code

    try:
        yield
    except START_ERRORS as error:
        fail(str(error), code=exit_code(error))


def _leave_stuck_threads() -> None:
    """Exit now if librdkafka keeps a thread, which the interpreter would wait for. Called when all work is done."""
    from pointsman_server.adapters.kafka.group_consumer import stuck_threads
    from pointsman_server.runtime.immediate_exit import exit_now

    if stuck_threads():
        exit_now(0)
