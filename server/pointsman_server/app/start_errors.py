"""Why a server could not start, as the exit code of its process."""

from pointsman_server.adapters.files.policy import PolicyError
from pointsman_server.app.listening import ListenError
from pointsman_server.embedded import EngineError
from pointsman_server.rpc.transport.certificates import BadCertificates
from pointsman_server.rpc.transport.choice import TransportUnavailable
from pointsman_server.runtime.private_directory import UnusableDirectory
from pointsman_server.telemetry.tracing.activation import TracingMissing

FAILED, WRONG_SETTINGS = 1, 2

EXIT_CODES: dict[type[Exception], int] = {
    ListenError: FAILED,
    EngineError: FAILED,
    TransportUnavailable: WRONG_SETTINGS,
    PolicyError: WRONG_SETTINGS,
    BadCertificates: WRONG_SETTINGS,
    UnusableDirectory: WRONG_SETTINGS,
    TracingMissing: WRONG_SETTINGS,
}
# Their text says what to do, so it is shown without a traceback.
START_ERRORS = tuple(EXIT_CODES)


def exit_code(error: Exception) -> int:
    """Return the exit code for one of ``START_ERRORS``."""
    return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
