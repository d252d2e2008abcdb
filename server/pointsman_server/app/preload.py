"""Loads what a server consists of, all at once and with the garbage collector off."""

from pointsman_server.runtime.gc_freeze import gc_disabled_then_frozen
from pointsman_server.runtime.offload import interrupt_threads_soon


def preload(*, with_kafka: bool, with_xds: bool = False) -> None:
    """Import the server, and let its event loop interrupt threads soon."""
    interrupt_threads_soon()
    with gc_disabled_then_frozen():
        # Not alembic, which is a sixth of the memory of a server: only `dev` and `migrate` migrate.
        from pointsman_server.adapters import kafka
        from pointsman_server.app import application

        del application
        if with_kafka:
            kafka.load()
        if with_xds:
            from pointsman_server.app.xds import door

            del door
