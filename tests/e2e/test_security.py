"""``pointsman-server serve`` beyond loopback, and with TLS in several workers."""

from pathlib import Path

import grpc
import pytest

from pointsman import Client
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support.certificates import Authority, Pair, TlsFiles, connect
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, jwks
from tests.support.processes import free_port, get_metric, get_text, run, server_process
from tests.support.servers import EVERYBODY
from tests.support.waiting import eventually


@pytest.fixture
def environ(database_url, redis_url) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "POINTSMAN_ROLES": "api",
        "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
    }


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_it_does_not_start_where_others_reach_it_unprotected(environ, tmp_path, command):
    data = tmp_path / "data"
    result = run("pointsman-server", command, POINTSMAN_LISTEN="0.0.0.0:0", POINTSMAN_DATA_DIR=str(data), **environ)

    assert result.returncode == 2
    assert "POINTSMAN_ALLOW_ANONYMOUS=true or `serve --allow-anonymous`" in result.stderr
    assert "POINTSMAN_ALLOW_PLAINTEXT=true or `serve --allow-plaintext`" in result.stderr
    assert not data.exists()


@pytest.fixture(params=["auto", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_does_not_start_on_certificates_that_it_cannot_use(environ, tmp_path, transport):
    files = TlsFiles(tmp_path)
    files.write(Authority().server())
    files.key.write_text("canary")
    environ["POINTSMAN_TRANSPORT"] = transport
    result = run(
        "pointsman-server",
        "serve",
        POINTSMAN_LISTEN="127.0.0.1:0",
        POINTSMAN_TLS_CERT_FILE=str(files.cert),
        POINTSMAN_TLS_KEY_FILE=str(files.key),
        **environ,
    )

    assert result.returncode == 2
    assert f"{files.key}: the key is no PEM" in result.stderr
    assert "canary" not in result.stderr


def test_what_is_allowed_is_logged_and_exported(environ):
    # Loopback as the resolver reads it, and no address to the settings: they cannot know that nobody else gets there.
    # (grpcio would not take it.)
    environ |= {"POINTSMAN_LISTEN": "127.1:0", "POINTSMAN_TRANSPORT": "envoy"}
    with server_process("serve", "--allow-anonymous", "--allow-plaintext", **environ) as process:
        http_port = process.wait_for_log("serving")["http_port"]

        said = [(line["what"], line["level"]) for line in process.log("listening beyond loopback, insecurely")]
        assert said == [("anonymous", "warning"), ("plaintext", "warning")]
        for what in ("anonymous", "plaintext"):
            assert get_metric(f"http://127.0.0.1:{http_port}", f'pointsman_insecure{{what="{what}"}}') == 1


def test_on_loopback_nothing_is_said(environ):
    with server_process("serve", **environ | {"POINTSMAN_LISTEN": "127.0.0.1:0"}) as process:
        http_port = process.wait_for_log("serving")["http_port"]

        assert process.log("listening beyond loopback, insecurely") == []
        for what in ("anonymous", "plaintext"):
            assert get_metric(f"http://127.0.0.1:{http_port}", f'pointsman_insecure{{what="{what}"}}') == 0


def test_tokens_reach_neither_logs_nor_metrics(environ, tmp_path: Path):
    key = SigningKey("key-1")
    (tmp_path / "keys.json").write_bytes(jwks(key))
    environ |= {
        "POINTSMAN_LISTEN": "127.0.0.1:0",
        "POINTSMAN_LOG_LEVEL": "debug",
        "POINTSMAN_JWT_ISSUER": ISSUER,
        "POINTSMAN_JWT_AUDIENCE": AUDIENCE,
        "POINTSMAN_JWT_JWKS_FILE": str(tmp_path / "keys.json"),
        "POINTSMAN_POLICY_FILE": str(EVERYBODY),
    }
    good, bad = key.token(), SigningKey("key-1", number=1).token()
    shown = [
        good,
        bad,
        key.token(exp=1),
        # Envoy's own log at this level has the word "canary".
        "magpie",
        "magpie.magpie.magpie",
        f"pmk_magpie_{'magpie' * 8}",
        f"{good}magpie",
    ]
    with server_process("serve", **environ) as process:
        served = process.wait_for_log("serving")
        with grpc.insecure_channel(f"127.0.0.1:{served['grpc_port']}") as channel:
            answers = [answer_to(channel, token) for token in shown]
        metrics = get_text(f"http://127.0.0.1:{served['http_port']}/metrics")
        assert process.stop() == 0
        printed = process.errors + process.output

    assert [code for code, _ in answers] == [grpc.StatusCode.OK] + [grpc.StatusCode.UNAUTHENTICATED] * 6
    everything = printed + metrics + "".join(text for _, text in answers)
    assert len(logged_calls(printed)) == len(shown)
    assert "magpie" not in everything
    # Neither a whole token nor any part of one.
    assert not [part for token in shown[:3] for part in token.split(".") if part in everything]


def answer_to(channel: grpc.Channel, token: str) -> tuple[grpc.StatusCode, str]:
    """Call with a token; give the code and everything that comes back."""
    try:
        RouteServiceStub(channel).List(pb.ListRequest(), metadata=[("authorization", f"Bearer {token}")])
    except grpc.RpcError as error:
        return error.code(), f"{error.details()} {error.trailing_metadata()}"
    return grpc.StatusCode.OK, ""


def logged_calls(text: str) -> list[str]:
    return [line for line in text.splitlines() if '"event": "call"' in line or '"event":"call"' in line]


def test_workers_share_a_port_with_tls_and_each_takes_a_new_certificate(environ, tmp_path: Path, transport):
    environ["POINTSMAN_TRANSPORT"] = transport
    old, new = Authority(), Authority()
    files = TlsFiles(tmp_path)
    files.write(old.server())
    port = free_port()
    environ |= {
        "POINTSMAN_LISTEN": f"127.0.0.1:{port}",
        "POINTSMAN_TLS_CERT_FILE": str(files.cert),
        "POINTSMAN_TLS_KEY_FILE": str(files.key),
    }
    with server_process("serve", "--workers", "2", **environ) as process:
        process.wait_for_log("serving", times=2)
        assert all(answers(port, old) for _ in range(8))

        files.write(new.server())
        assert eventually(lambda: all(answers(port, new) for _ in range(8)))
        assert not any(answers(port, old) for _ in range(8))
        assert process.stop() == 0


def answers(port: int, trusted: Authority) -> bool:
    """Say whether a new connection, to whichever worker, is answered."""
    with connect(f"localhost:{port}", trusted) as channel:
        try:
            RouteServiceStub(channel).List(pb.ListRequest(), timeout=20)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            return False
        return True


def test_the_command_and_the_client_call_by_their_certificate(environ, tmp_path: Path, transport):
    ours = Authority()
    files = TlsFiles(tmp_path)
    files.write(ours.server(), ours.pem)
    certificates = client_files(tmp_path, ours, ours.client(uris=("spiffe://prod/ci",)))
    environ |= {
        "POINTSMAN_TRANSPORT": transport,
        "POINTSMAN_LISTEN": "127.0.0.1:0",
        "POINTSMAN_TLS_CERT_FILE": str(files.cert),
        "POINTSMAN_TLS_KEY_FILE": str(files.key),
        "POINTSMAN_TLS_CLIENT_CA_FILE": str(files.client_ca),
        "POINTSMAN_POLICY_FILE": str(EVERYBODY),
    }
    with server_process("serve", **environ) as process:
        served = process.wait_for_log("serving")
        assert served["transport"] == ("envoy" if transport == "auto" else transport)
        server = f"localhost:{served['grpc_port']}"
        key = "team-a/payments/prod/v1"
        with Client(server, **certificates) as client:
            client.create(key, "https://payments.internal")
        flags = [word for name, path in certificates.items() for word in (f"--{name.replace('_', '-')}", str(path))]
        resolved = run("pointsman", "--server", server, *flags, "resolve", key)
        history = run("pointsman", "--server", server, *flags, "history", key)
        without = run("pointsman", "--server", server, "--ca-file", str(files.client_ca), "resolve", key)

    assert resolved.stdout.strip() == "https://payments.internal"
    assert "spiffe://prod/ci" in history.stdout
    assert without.returncode == 5, "no handshake"


def client_files(directory: Path, ours: Authority, pair: Pair) -> dict[str, Path]:
    """Write the files of a client; give them by the names of its options."""
    files = {"ca_file": ours.pem, "cert_file": pair.cert, "key_file": pair.key}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return {name: directory / name for name in files}
