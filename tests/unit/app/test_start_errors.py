"""app.start_errors: the exit code for each reason why a server cannot start."""

import pytest

from pointsman_server.adapters.files.policy import PolicyError
from pointsman_server.app.listening import ListenError
from pointsman_server.app.start_errors import START_ERRORS, exit_code
from pointsman_server.embedded import EngineError
from pointsman_server.rpc.transport.certificates import BadCertificates
from pointsman_server.rpc.transport.choice import TransportUnavailable
from pointsman_server.runtime.private_directory import UnusableDirectory


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ListenError, 1),
        (EngineError, 1),
        (TransportUnavailable, 2),
        (PolicyError, 2),
        (BadCertificates, 2),
        (UnusableDirectory, 2),
    ],
)
def test_wrong_settings_are_2_and_the_rest_is_1(kind: type[Exception], code: int) -> None:
    assert kind in START_ERRORS
    assert exit_code(kind("why")) == code
