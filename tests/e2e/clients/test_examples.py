"""The example clients in Go, TypeScript and Java: what they resolve, the details of errors, and their own tests."""

import pytest

from pointsman import Client
from tests.support.example_programs import LANGUAGES, built, resolve, run_own_tests, select, watching
from tests.support.examples import EXAMPLES, Example
from tests.support.processes import run
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
# SIGTERM ends a JVM with 128 and its number.
STOPPED = {0, 143}


@pytest.fixture(params=LANGUAGES)
def example(request: pytest.FixtureRequest) -> Example:
    return built(request.param)


def client_of(door) -> Client:
    return Client(door.target, ca_file=door.files.client_ca if door.authority else None)


def trust(door) -> list[str]:
    return ["--ca-file", str(door.files.client_ca)] if door.authority else []


def test_its_own_tests_pass(example):
    done = run_own_tests(example)

    assert done.returncode == 0, done.stdout + done.stderr
    # Not none at all: the names of the cases are printed.
    printed = done.stdout.replace("_", " ")
    assert "a change set in parts is applied in one step" in printed
    assert "two points are left, and word 64 decides" in printed


def test_it_resolves_and_reads_the_details_of_errors(example, door, key):
    text = "/".join(key.values())
    with client_of(door) as client:
        client.create(text, URL)

    keys = (text, f"{text}9", f"a b/{key['service']}/prod/ä")
    done = resolve(example, "--server", door.target, *trust(door), *keys)

    assert (done.returncode, done.stdout) == (1, f"{URL}\n"), done.stderr
    absent, malformed = done.stderr.split("error: ")[1:]
    assert absent.startswith("NOT_FOUND ROUTE_NOT_FOUND: ")
    assert f"  key: {text}9\n" in absent
    assert "  revision: " in absent
    assert malformed.startswith("INVALID_ARGUMENT INVALID_FIELD: ")
    assert "  field key.tenant: must be 1 to 63 characters" in malformed
    assert "  field key.version: must be 1 to 63 characters" in malformed


@pytest.mark.parametrize("door", [("envoy", "tls")], indirect=True, ids="-".join)
def test_it_selects_the_version_that_the_server_selects(example, door, key):
    family = f"{key['tenant']}/payments/prod"
    sticky_keys = [
        *(f"user-{number}" for number in range(990)),
        *"0aé ",
        "用户-42",
        "🦊",
        "a/b",
        "x" * 256,
        "=",
        "é" * 128,
    ]
    with client_of(door) as client:
        for version in ("v1", "v2", "v3"):
            client.create(f"{family}/{version}", f"https://{version}.internal")
        client.set_traffic(family, {"v1": 5_000, "v2": 3_000, "v3": 2_000})
        client.set_traffic(family, {"v1": 4_000, "v2": 3_500, "v3": 2_500})
        client.deactivate(f"{family}/v3")
        results = client.batch_select([(family, sticky_key) for sticky_key in sticky_keys])
    there = [f"{result.unwrap().version} {result.unwrap().url}" for result in results]
    assert len(there) == 1_000

    done = select(example, family, sticky_keys, "--server", door.target, *trust(door))

    assert (done.returncode, done.stdout.splitlines()) == (0, there), done.stderr
    assert {line.split()[0] for line in there} == {"v1", "v2"}


@pytest.mark.parametrize("door", [("grpcio", "plaintext"), ("envoy", "tls")], indirect=True, ids="-".join)
def test_it_keeps_a_table_current_and_resumes(example, door, key):
    tenant = key["tenant"]
    old, new = (f"{tenant}/payments/prod/{version}" for version in ("v1", "v2"))
    with client_of(door) as client, TcpProxy(door.address) as proxy:
        client.create(old, URL)
        start = client.create(new, URL, active=False).revision
        server = proxy.address.replace("127.0.0.1", "localhost")
        with watching(example, "--server", server, *trust(door), "--tenant", tenant) as watch:
            lines = [f"snapshot of 2 routes at revision {start}", f"live at revision {start}"]
            watch.wait_for(*lines)

            client.activate(new, exclusive=True)
            lines += [f"{start + 1} ACTIVATED {new} {URL} active", f"{start + 2} DEACTIVATED {old} {URL} inactive"]
            watch.wait_for(*lines)

            proxy.refuse = True
            proxy.cut()
            client.delete(old)
            error = watch.wait_for_error(f"resuming after revision {start + 2}")
            assert error.startswith("interrupted: UNAVAILABLE: "), error
            proxy.refuse = False
            watch.wait_for(*lines, f"{start + 3} DELETED {old}", f"live at revision {start + 3}")

            # It says what it has when somebody asks.
            assert eventually(lambda: client.get_propagation(tenant=tenant, revision=start + 3).applied_count == 1)
            assert watch.stop() in STOPPED


@pytest.mark.go
@pytest.mark.node
@pytest.mark.java
def test_its_bearer_token_is_what_the_server_checks(doors, authority, tmp_path):
    door = doors.open("envoy", authority, POINTSMAN_API_KEYS="true")
    made = run("pointsman-server", "keys", "create", "ci", "--grant", "reader:team-a", DATABASE_URL=door.database_url)
    assert made.returncode == 0, made.stderr
    token = tmp_path / "token"
    options = ["--server", door.target, *trust(door), "--token-file", str(token)]

    # Servers ask for a key that they do not know at most once a second, and this one has just started.
    def is_known() -> bool:
        token.write_text(made.stdout)
        return "unknown key" not in resolve(built("go"), *options, "team-a/payments/prod/v1").stderr

    assert eventually(is_known)
    for example in map(built, EXAMPLES):
        token.write_text(made.stdout)
        known = resolve(example, *options, "team-a/payments/prod/v1", "team-b/payments/prod/v1")
        token.write_text(made.stdout.replace("pmk_", "pmk_a"))
        unknown = resolve(example, *options, "team-a/payments/prod/v1")

        allowed, denied = known.stderr.split("error: ")[1:]
        assert allowed.startswith("NOT_FOUND ROUTE_NOT_FOUND: "), (example.name, known.stderr)
        assert denied.startswith("PERMISSION_DENIED FORBIDDEN: "), (example.name, known.stderr)
        assert "  permission: routes.read\n" in denied
        assert unknown.stderr.startswith("error: UNAUTHENTICATED UNAUTHENTICATED: "), (example.name, unknown.stderr)
        assert "  credential: api key\n" in unknown.stderr
