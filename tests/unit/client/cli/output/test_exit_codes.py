"""cli.exits: the codes that scripts rely on."""

import pytest

from pointsman import errors
from pointsman.cli.output.exit_codes import HELP, ExitCode, exit_code


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidArgument, 2),
        (errors.RouteNotFound, 3),
        (errors.RouteInactive, 3),
        (errors.RouteExists, 4),
        (errors.RevisionMismatch, 4),
        (errors.RequestIdReused, 4),
        (errors.Unavailable, 5),
        (errors.RevisionNotReached, 5),
        (errors.DeadlineExceeded, 5),
        (errors.Unauthenticated, 6),
        (errors.PermissionDenied, 6),
        (errors.Internal, 1),
        (errors.ResourceExhausted, 1),
        (errors.PointsmanError, 1),
    ],
)
def test_each_error_has_its_code(kind: type[errors.PointsmanError], code: int) -> None:
    assert exit_code(kind("")) == code


@pytest.mark.parametrize("code", ExitCode)
def test_each_code_is_in_the_help(code: ExitCode) -> None:
    assert f"{code.value} " in HELP
