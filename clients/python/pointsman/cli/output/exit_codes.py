"""The exit codes: what a script can tell from the end of a command."""

from enum import IntEnum

from pointsman import errors


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    DENIED = 6
    DIFFERENT = 10


HELP = (
    "Exit codes: 0 ok · 1 failed · 2 usage or invalid argument · 3 not found or inactive · "
    "4 conflict (exists, other revision, request id reused, in use, changed since, ambiguous) · "
    "5 unavailable or out of time, also of --wait · "
    "6 not authenticated or not permitted · 10 apply --dry-run --exit-code found a difference"
)

# The first match counts, so a subclass comes before its parent.
_CODES: tuple[tuple[type[errors.PointsmanError], ExitCode], ...] = (
    (errors.RequestIdReused, ExitCode.CONFLICT),
    (errors.InvalidArgument, ExitCode.USAGE),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.Conflict, ExitCode.CONFLICT),
    (errors.FailedPrecondition, ExitCode.CONFLICT),
    (errors.Unavailable, ExitCode.UNAVAILABLE),
    (errors.DeadlineExceeded, ExitCode.UNAVAILABLE),
    (errors.Unauthenticated, ExitCode.DENIED),
    (errors.PermissionDenied, ExitCode.DENIED),
)


def exit_code(error: errors.PointsmanError) -> ExitCode:
    """Return the exit code of a command that ended with ``error``."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
