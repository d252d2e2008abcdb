"""The example clients retry what the service config says, and RESOURCE_EXHAUSTED after RetryInfo; and nothing else."""

import re
from collections import deque

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.example_programs import LANGUAGES, built, resolve
from tests.support.fake_route_service import Failure, FakeServer, serving

URL = "https://payments.internal:8443"
RETRY_INFO = error_details_pb2.RetryInfo()
RETRY_INFO.retry_delay.FromMilliseconds(20)

AWAY = Failure(grpc.StatusCode.UNAVAILABLE, "away", trailers=(("grpc-retry-pushback-ms", "1"),))
GONE = Failure(grpc.StatusCode.UNAVAILABLE, "gone", trailers=(("grpc-retry-pushback-ms", "-1"),))
BUSY = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", "OVERLOADED", details=(RETRY_INFO,))
LARGE = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "large")
ABSENT = Failure(grpc.StatusCode.NOT_FOUND, "absent", "ROUTE_NOT_FOUND")

# What the attempts for a key end with, after which the route is there; how many are made; and what is said in the end.
SCRIPTS = {
    "passes": ([AWAY, AWAY], 3, None),
    "lasts": ([AWAY] * 9, 4, "UNAVAILABLE: away"),
    "is-final": ([GONE], 1, "UNAVAILABLE: gone"),
    "is-busy": ([BUSY, BUSY], 3, None),
    "stays-busy": ([BUSY] * 9, 4, "RESOURCE_EXHAUSTED OVERLOADED: busy\n  retry after: 0.020 s"),
    "is-too-large": ([LARGE], 1, "RESOURCE_EXHAUSTED: large"),
    "is-absent": ([ABSENT], 1, "NOT_FOUND ROUTE_NOT_FOUND: absent"),
}
# In what gRPC itself sends again it says how often it has done so.
ATTEMPTS = "grpc-previous-rpc-attempts"


class Scripted(FakeServer):
    """Fails as SCRIPTS say."""

    def __init__(self) -> None:
        super().__init__()
        self._scripts = {name: deque(failures) for name, (failures, *_) in SCRIPTS.items()}

    def Resolve(self, request, context):  # noqa: N802 - named as in the API
        script = self._scripts[request.key.service]
        if script:
            self.fail("Resolve", script.popleft())
        return super().Resolve(request, context)

    def attempts(self, service):
        return [call for call in self.called("Resolve") if call.request.key.service == service]


@pytest.mark.parametrize("name", LANGUAGES)
def test_it_retries_what_passes_and_nothing_else(name, tmp_path):
    token = tmp_path / "token"
    token.write_text("the-token\n")
    keys = {service: f"team-a/{service}/prod/v1" for service in SCRIPTS}
    with serving(Scripted()) as server:
        for key in keys.values():
            server.add(key, URL)
        done = resolve(built(name), "--server", server.target, "--token-file", str(token), *keys.values())

    answered = [service for service, (*_, error) in SCRIPTS.items() if error is None]
    errors = [error for *_, error in SCRIPTS.values() if error is not None]
    assert done.stdout.splitlines() == [URL] * len(answered), done.stderr
    # grpc-go says before the server's text that it has given up.
    assert re.sub(r"max retries exhausted: .*? desc = ", "", done.stderr) == "".join(
        f"error: {text}\n" for text in errors
    )
    assert {service: len(server.attempts(service)) for service in SCRIPTS} == {
        service: count for service, (_, count, _) in SCRIPTS.items()
    }
    assert [call.metadata.get(ATTEMPTS) for call in server.attempts("passes")] == [None, "1", "2"]
    assert [call.metadata.get(ATTEMPTS) for call in server.attempts("is-busy")] == [None, None, None]
    assert {call.metadata["authorization"] for call in server.calls} == {"Bearer the-token"}
