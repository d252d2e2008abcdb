"""The example clients in Go, TypeScript and Java: what they resolve, the details of errors, and their own tests."""

import pytest

from pointsman import Client
from tests.support.example_programs import LANGUAGES, built, run, run_own_tests
from tests.support.examples import Example

URL = "https://payments.internal:8443"


@pytest.fixture(params=LANGUAGES)
def example(request: pytest.FixtureRequest) -> Example:
    return built(request.param)


def test_its_own_tests_pass(example):
    done = run_own_tests(example)

    assert done.returncode == 0, done.stdout + done.stderr
    # Not none at all: the names of the cases are printed.
    assert "a change set in parts is applied in one step" in done.stdout.replace("_", " ")


def test_it_resolves_and_reads_the_details_of_errors(example, door, key):
    text = "/".join(key.values())
    ca_file = door.files.client_ca if door.authority else None
    with Client(door.target, ca_file=ca_file) as client:
        client.create(text, URL)
    options = ["--server", door.target, *(["--ca-file", str(ca_file)] if ca_file else [])]

    done = run(example, "resolve", *options, text, f"{text}9", f"a b/{key['service']}/prod/ä")

    assert (done.returncode, done.stdout) == (1, f"{URL}\n"), done.stderr
    absent, malformed = done.stderr.split("error: ")[1:]
    assert absent.startswith("NOT_FOUND ROUTE_NOT_FOUND: ")
    assert f"  key: {text}9\n" in absent
    assert "  revision: " in absent
    assert malformed.startswith("INVALID_ARGUMENT INVALID_FIELD: ")
    assert "  field key.tenant: must be 1 to 63 characters" in malformed
    assert "  field key.version: must be 1 to 63 characters" in malformed
