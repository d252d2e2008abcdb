"""What the operator should know of a server that starts all the same: shown by ``check``, and logged by ``serve``."""

from collections.abc import Iterator

from pointsman_server.adapters.postgres.session import may_reach_standby, parse_url
from pointsman_server.app.listening import descriptors_for, most_connections
from pointsman_server.config import rules
from pointsman_server.config.names import variable
from pointsman_server.config.settings import Settings
from pointsman_server.rpc.transport.choice import Choice
from pointsman_server.runtime import descriptors


def start_warnings(settings: Settings, choice: Choice | None) -> Iterator[str]:
    """Say in one sentence each what the settings ask for and this server does not do.

    ``choice`` is the transport of RouteService; None where that is not served.
    """
    if choice is not None:
        yield from _of_transport(settings, choice)
    for name in ("database_url", "database_session_url"):
        if may_reach_standby(parse_url(getattr(settings, name).get_secret_value())):
            yield (
                f"{variable(name)} names several hosts without target_session_attrs=read-write: a connection may "
                "reach a standby, which takes no writes"
            )
    most = most_connections(settings)
    if most < settings.max_connections:
        needed, reachable = descriptors_for(settings), descriptors.within_reach()
        yield (
            f"POINTSMAN_MAX_CONNECTIONS ({settings.max_connections}) needs {needed} file descriptors, and the process "
            f"may have {reachable}: it takes {most} connections; raise the hard limit (ulimit -Hn), or set fewer"
        )


def _of_transport(settings: Settings, choice: Choice) -> Iterator[str]:
    if settings.transport == "auto" and choice.transport == "grpcio":
        yield f"the transport envoy would be faster, and takes JSON; this is grpcio: {choice.reason}"
    for name, remedy in rules.ignored(settings, choice.transport).items():
        yield f"{name} has no effect on the transport {choice.transport}: {remedy}"
