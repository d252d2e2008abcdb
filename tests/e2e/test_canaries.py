"""No secret gets out: each has a canary in it, everything is done that may print one, and then all is searched.

What is searched: logs and outputs of all processes and commands, every answer, metrics, health, every table of both
databases, and every message of the topics. A reason, which is no secret, must be found there: so the search works.
"""

import itertools
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import psycopg
import pytest
import redis
from psycopg import sql

from pointsman import xds
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import xds_service_pb2 as asks
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.xds_service_pb2_grpc import XdsServiceStub
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.domain import api_keys
from tests.support.canaries import found
from tests.support.certificates import Authority, TlsFiles, connect
from tests.support.engines import create_database, drop_database
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, jwks
from tests.support.kafka import admin, read_all
from tests.support.processes import ServerProcess, get_text, run, server_process
from tests.support.servers import EVERYBODY
from tests.support.waiting import eventually
from tests.support.xds_streams import RDS, stream

RUN = uuid.uuid4().hex[:8]
REASON = f"canary-of-a-reason-{RUN}"
NOWHERE = "127.0.0.1:1"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
REFUSED_CERTIFICATES = "new certificates cannot be used, the old ones stay"
KEY = "canaries/payments/prod/v1"
CLIENT_STATUS = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"


@dataclass
class Scene:
    """The secrets by name, and everything that was said by whom."""

    authority: Authority = field(default_factory=Authority)
    secrets: dict[str, str] = field(default_factory=dict)
    said: dict[str, str | bytes] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def plant(self, name: str) -> str:
        """Make a secret; it has characters that URLs escape."""
        secret = f"c4n4ry/{name}+{RUN}%!"
        return self.secrets.setdefault(name, secret)

    def hold(self, name: str, secret: str) -> str:
        """Look for a secret that is made elsewhere."""
        self.secrets[name] = secret
        return secret

    def hear(self, who: str, text: object) -> None:
        """Keep what was said."""
        self.said[f"{who} #{next(self._numbers)}"] = text if isinstance(text, bytes) else str(text)

    def run(self, command: Iterable[str], environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        """Run a command and hear it."""
        done = run(*command, **environ)
        self.hear(str(done.args[:4]), done.stdout + done.stderr)
        return done

    def run_all(self, commands: Iterable[tuple[str, ...]], environ: dict[str, str]) -> None:
        """Run commands that mostly wait, some at once; their exit codes are their own."""
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda command: self.run(command, environ), commands))
        assert all(each.stdout or each.stderr for each in done)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def audit_url(database_url: str) -> Iterator[str]:
    url = create_database(database_url)
    migrate(database_url, url)
    yield url
    drop_database(url)


def with_password(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def environ(
    scene: Scene, engines: Any, database_url: str, redis_url: str, audit_url: str, kafka_broker: Any, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """The settings of a server where every secret is right, and each is a canary."""
    files = TlsFiles(tmp_path)
    files.write(scene.authority.server())
    scene.hold("TLS key", files.key.read_text().splitlines()[1])
    signer = SigningKey("key-1")
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    user = urlsplit(database_url).username or ""
    password = scene.plant("redis-password")
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", f"canary-{RUN}", "on", f">{password}", "~*", "&*", "+@all")
        try:
            yield {
                "DATABASE_URL": with_password(database_url, user, scene.plant("database-password")),
                "POINTSMAN_DATABASE_SESSION_URL": with_password(database_url, user, scene.plant("session-password")),
                "POINTSMAN_DATABASE_REPLICA_URLS": with_password(database_url, user, scene.plant("replica-password")),
                "POINTSMAN_AUDIT_DATABASE_URL": with_password(audit_url, user, scene.plant("audit-password")),
                "REDIS_URL": with_password(redis_url, f"canary-{RUN}", password),
                "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
                "POINTSMAN_KAFKA_TOPIC": f"canaries-{RUN}",
                "POINTSMAN_LISTEN": "127.0.0.1:0",
                "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0",
                "POINTSMAN_XDS_LISTEN": "127.0.0.1:0",
                "POINTSMAN_ROLES": "api,relay,cache,audit,xds",
                "POINTSMAN_LOG_LEVEL": "debug",
                "POINTSMAN_ACCESS_LOG_SAMPLE": "1",
                "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
                "POINTSMAN_TLS_CERT_FILE": str(files.cert),
                "POINTSMAN_TLS_KEY_FILE": str(files.key),
                "POINTSMAN_JWT_ISSUER": ISSUER,
                "POINTSMAN_JWT_AUDIENCE": AUDIENCE,
                "POINTSMAN_JWT_JWKS_FILE": str(tmp_path / "keys.json"),
                "POINTSMAN_API_KEYS": "true",
                "POINTSMAN_ACCESS_REFRESH_SECONDS": "0.2",
                "POINTSMAN_AUTH_FAILURES_PER_SECOND": "1000",
                "POINTSMAN_POLICY_FILE": str(EVERYBODY),
            }
        finally:
            client.execute_command("ACL", "DELUSER", f"canary-{RUN}")


def without_tls(environ: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("POINTSMAN_TLS")}


def broken(scene: Scene, environ: dict[str, str]) -> dict[str, str]:
    """Wrong passwords and unreachable hosts, so that every error is printed."""
    redis_url = urlsplit(environ["REDIS_URL"])._replace(path="/0").geturl()
    return without_tls(environ) | {
        "DATABASE_URL": with_password(environ["DATABASE_URL"], "stranger", scene.plant("wrong-database-password")),
        "POINTSMAN_DATABASE_SESSION_URL": with_password(f"postgresql://{NOWHERE}/d", "u", scene.plant("no-session")),
        "POINTSMAN_DATABASE_REPLICA_URLS": with_password(f"postgresql://{NOWHERE}/d", "u", scene.plant("no-replica")),
        "POINTSMAN_AUDIT_DATABASE_URL": with_password(f"postgresql://{NOWHERE}/d", "u", scene.plant("unreachable")),
        "REDIS_URL": with_password(redis_url, f"canary-{RUN}", scene.plant("wrong-redis-password")),
        "POINTSMAN_KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        "POINTSMAN_KAFKA_SASL_MECHANISM": "PLAIN",
        "POINTSMAN_KAFKA_SASL_USERNAME": "stranger",
        "POINTSMAN_KAFKA_SASL_PASSWORD": scene.plant("kafka-password"),
    }


def of_kafka(scene: Scene, environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """Give the other secrets for Kafka, each for brokers that do not want it."""
    yield environ | {
        "POINTSMAN_KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        "POINTSMAN_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "POINTSMAN_KAFKA_OAUTH_TOKEN_URL": f"http://{NOWHERE}/token",
        "POINTSMAN_KAFKA_OAUTH_CLIENT_ID": "stranger",
        "POINTSMAN_KAFKA_OAUTH_CLIENT_SECRET": scene.plant("oauth-secret"),
    }
    yield environ | {
        "POINTSMAN_KAFKA_SECURITY_PROTOCOL": "ssl",
        "POINTSMAN_KAFKA_CERT_FILE": environ["POINTSMAN_TLS_CERT_FILE"],
        "POINTSMAN_KAFKA_KEY_FILE": environ["POINTSMAN_TLS_KEY_FILE"],
        "POINTSMAN_KAFKA_KEY_PASSWORD": scene.plant("key-password"),
    }


def made_key(scene: Scene, environ: dict[str, str], name: str) -> str:
    """Make an API key by the command, which prints it once, on stdout."""
    done = run("pointsman-server", "keys", "create", name, **environ)
    assert done.returncode == 0, done.stderr
    scene.hear(f"keys create {name}", done.stderr)
    text = done.stdout.strip()
    scene.hold(f"API key {name}", api_keys.parse(text)[1])
    return text


def of_another_secret(scene: Scene, text: str) -> str:
    key_id, secret = api_keys.parse(text)
    forged = f"pmk_{key_id}_{scene.hold('wrong secret', secret[::-1])}"
    return forged + api_keys._check(forged)


def credentials(scene: Scene, environ: dict[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Make headers of every kind, good and bad, by name; what is secret in each is looked for."""
    good, revoked = made_key(scene, environ, "good"), made_key(scene, environ, "revoked")
    scene.run(("pointsman-server", "keys", "revoke", "revoked"), environ)
    signer, email = SigningKey("key-1"), scene.plant("claim")
    tokens = {
        "good token": signer.token(email=email, jti=scene.plant("jti")),
        "expired token": signer.token(exp=1, email=email),
        "forged token": SigningKey("key-1", number=9).token(email=email),
        "token of nobody": SigningKey("another", number=9).token(email=email),
        "token of another issuer": signer.token(iss=scene.plant("issuer")),
    }
    for name, token in tokens.items():
        _, claims, signature = token.split(".")
        scene.hold(f"claims of the {name}", claims)
        scene.hold(f"signature of the {name}", signature)
    texts = tokens | {"good key": good, "revoked key": revoked, "wrong secret": of_another_secret(scene, good)}
    garbage = scene.plant("garbage").replace("%!", "")
    texts |= {"garbage": garbage, "half a key": f"pmk_{garbage}", "three parts": f"{garbage}.{garbage}.{garbage}"}
    headers = {name: [("authorization", f"Bearer {text}")] for name, text in texts.items()}
    headers["no scheme"] = [("authorization", scene.plant("no-scheme"))]
    headers["basic"] = [("authorization", f"Basic {scene.plant('basic')}")]
    headers["two"] = headers["good token"] + [("authorization", f"Bearer {scene.plant('second')}")]
    headers["nothing"] = []
    return headers


def requests(scene: Scene) -> list[tuple[str, Any]]:
    """Make requests with secrets where none belongs; all are refused."""
    key = RouteKey(tenant="canaries", service="payments", env="prod", version="v2")
    url = f"https://user:{quote(scene.plant('url-password'), safe='')}@payments.internal"
    token = scene.plant("misplaced")
    return [
        ("Create", pb.CreateRequest(key=key, url=url)),
        ("Update", pb.UpdateRequest(key=key, url=url, allow_missing=True)),
        ("Create", pb.CreateRequest(key=key, url=f"https://{quote(token, safe='')}@host\n")),
        ("Create", pb.CreateRequest(key=key, url="https://host", request_id=token)),
        ("Create", pb.CreateRequest(key=key, url="https://host", labels={token: "x"})),
        ("Get", pb.GetRequest(key=RouteKey(tenant=token, service=token, env=token, version=token))),
        ("List", pb.ListRequest(page_token=token)),
        ("ListChanges", pb.ListChangesRequest(page_token=token)),
    ]


def answer(scene: Scene, who: str, call: Any, request: Any, metadata: list[tuple[str, str]]) -> grpc.StatusCode:
    """Make a call; hear its text, its details and its trailers."""
    try:
        scene.hear(who, call(request, metadata=metadata, timeout=30))
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        scene.hear(who, f"{error.details()} {error.debug_error_string()} {trailers}")
        scene.hear(who, trailers.get("grpc-status-details-bin", b""))
        return error.code()
    return grpc.StatusCode.OK


def call_with_everything(scene: Scene, channel: grpc.Channel, headers: dict[str, list[tuple[str, str]]]) -> None:
    """Call with each credential, with garbage beside it, and with secrets in the wrong places.

    Not in ``x-request-id``: the caller finds its call by it, in answers and in the log.
    """
    stub = RouteServiceStub(channel)
    beside = [
        ("traceparent", scene.plant("traceparent")),
        ("x-api-key", scene.plant("another-header")),
        ("cookie", scene.plant("cookie")),
    ]
    codes = {name: answer(scene, name, stub.List, pb.ListRequest(), shown + beside) for name, shown in headers.items()}
    good = {name for name, code in codes.items() if code is grpc.StatusCode.OK}
    assert good == {"good token", "good key"}
    assert {codes[name] for name in set(codes) - good} == {UNAUTHENTICATED}
    for method, request in requests(scene):
        code = answer(scene, method, getattr(stub, method), request, headers["good key"] + beside)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, (method, request)
    raw = channel.unary_unary("/pointsman.v1.RouteService/Create")
    body = b"\xff" + scene.plant("malformed").encode()
    assert answer(scene, "malformed", raw, body, headers["good key"]) is grpc.StatusCode.INVALID_ARGUMENT
    key = RouteKey(**dict(zip(("tenant", "service", "env", "version"), KEY.split("/"), strict=True)))
    create = pb.CreateRequest(key=key, url="https://host", labels={"tier": "gold"}, reason=REASON)
    assert answer(scene, "create", stub.Create, create, headers["good token"] + beside) is grpc.StatusCode.OK


def ask_by_xds(scene: Scene, channel: grpc.Channel, headers: dict[str, list[tuple[str, str]]]) -> None:
    """Open streams with good and bad credentials, refuse what is sent, and ask who is connected."""
    service, root = XdsServiceStub(channel), xds.name(KEY)
    for name in ("good token", "good key", "forged token", "revoked key"):
        with stream(channel, metadata=dict(headers[name])) as client:
            client.describe({"token": scene.plant("node-metadata")})
            client.subscribe(RDS, root)
            code = answer(scene, name, lambda _request, of=client, **_: of.read(), None, [])
            assert code is (grpc.StatusCode.OK if name.startswith("good") else UNAUTHENTICATED)
            if code is grpc.StatusCode.OK:
                client.refuse(client.last[RDS], "no")
                listed = partial(service.ListXdsClients, asks.ListXdsClientsRequest(), metadata=headers[name])
                assert eventually(lambda listed=listed: listed().clients[0].refusals)
                for call, request in (
                    (service.ListXdsClients, asks.ListXdsClientsRequest()),
                    (service.ExplainXds, asks.ExplainXdsRequest(key=KEY)),
                    (channel.unary_unary(CLIENT_STATUS), b""),
                ):
                    assert answer(scene, name, call, request, headers[name]) is grpc.StatusCode.OK


def commands_of_the_server(scene: Scene, environ: dict[str, str]) -> None:
    """Run each command that reads settings."""
    claim = f"x={scene.plant('claim')}"
    commands = (
        ("check",),
        ("keys", "list"),
        ("keys", "revoke", "nobody"),
        ("dead-letters", "list"),
        ("audit", "verify"),
        ("policy", "explain", "--as", "jwt:a", "--can", "Get", "--on", "a", "--claim", claim),
    )
    scene.run_all((("pointsman-server", *command) for command in commands), environ)


def commands_of_the_client(scene: Scene, address: str, headers: dict[str, list[tuple[str, str]]], tmp: Path) -> None:
    """Run ``pointsman`` with good and bad tokens, at this server and where there is none."""
    (tmp / "ca.pem").write_bytes(scene.authority.pem)
    there = ("pointsman", "--server", address, "--ca-file", str(tmp / "ca.pem"))
    url = f"https://user:{quote(scene.plant('url-password'), safe='')}@payments.internal"
    commands = []
    for name in ("good token", "forged token", "revoked key"):
        token = headers[name][0][1].removeprefix("Bearer ")
        file = tmp / name.replace(" ", "-")
        file.write_text(token)
        commands += [
            (*there, "--token", token, "create", KEY, url),
            (*there, "--token-file", str(file), "--json", "history"),
        ]
    (tmp / "two").write_text(f"{scene.plant('two-lines')}\n{scene.plant('two-lines')}")
    commands += [
        (*there, "--token-file", str(tmp / "two"), "list"),
        (*there, "--token", scene.plant("not a token"), "list"),
        ("pointsman", "--server", NOWHERE, "--timeout", "1", "--token", headers["good token"][0][1][7:], "list"),
    ]
    scene.run_all(commands, {})


def shake_hands(scene: Scene, address: str) -> bool:
    """Have the server look at its files."""
    with connect(address, scene.authority) as channel:
        return answer(scene, "handshake", RouteServiceStub(channel).List, pb.ListRequest(), []) is UNAUTHENTICATED


def look_at(scene: Scene, process: ServerProcess) -> None:
    """Read what a server shows by HTTP."""
    http = f"http://127.0.0.1:{process.log('serving')[-1]['http_port']}"
    for path in ("/metrics", "/health/ready", "/health/live", "/health"):
        scene.hear(path, get_text(f"{http}{path}"))


def tables(url: str) -> dict[str, str]:
    """Read every table, bytes in hex."""
    with psycopg.connect(url) as connection:
        names = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        query = sql.SQL("SELECT coalesce(string_agg(row_to_json(t)::text, chr(10)), '') FROM {} t")
        return {name: connection.execute(query.format(sql.Identifier(name))).fetchall()[0][0] for name in names}


def messages(environ: dict[str, str]) -> dict[str, bytes]:
    """Read every message of our topics, with keys and headers."""
    servers, ours = environ["KAFKA_BOOTSTRAP_SERVERS"], environ["POINTSMAN_KAFKA_TOPIC"]
    names = [name for name in admin(servers).list_topics(timeout=30).topics if name.startswith(ours)]
    return {
        f"{name} #{number}": b"\n".join(
            (message.key() or b"", message.value() or b"", repr(message.headers()).encode())
        )
        for name in names
        for number, message in enumerate(read_all(servers, name))
    }


def test_no_secret_gets_out(
    scene: Scene, environ: dict[str, str], database_url: str, audit_url: str, tmp_path: Path
) -> None:
    headers = credentials(scene, environ)
    with server_process("serve", **environ) as process:
        address = f"127.0.0.1:{process.wait_for_log('serving')['grpc_port']}"
        with connect(address, scene.authority) as channel:
            call_with_everything(scene, channel, headers)
        with connect(f"127.0.0.1:{process.log('serving')[-1]['xds_port']}", scene.authority) as channel:
            ask_by_xds(scene, channel, headers)
        commands_of_the_client(scene, address.replace("127.0.0.1", "localhost"), headers, tmp_path)
        commands_of_the_server(scene, environ)
        look_at(scene, process)
        assert eventually(lambda: messages(environ) and tables(audit_url)["audit_log"], 60)
        (tmp_path / "tls.key").write_text(f"-----BEGIN PRIVATE KEY-----\n{scene.plant('broken-key')}\n")
        assert eventually(lambda: shake_hands(scene, address) and process.log(REFUSED_CERTIFICATES))
        assert process.stop() == 0
        scene.hear("log", process.errors)
        scene.hear("stdout", process.output)
        assert len(process.log("call")) > len(headers)

    with server_process("serve", **broken(scene, environ)) as process:
        process.wait_for_log("serving")
        with grpc.insecure_channel(f"127.0.0.1:{process.log('serving')[-1]['grpc_port']}") as channel:
            for name, shown in headers.items():
                answer(scene, f"{name}, all down", RouteServiceStub(channel).List, pb.ListRequest(), shown)
        look_at(scene, process)
        process.stop()
        scene.hear("log, all down", process.errors)
        assert "stranger" in process.errors, "the driver says whom PostgreSQL refused"
    commands_of_the_server(scene, broken(scene, environ))
    for settings in of_kafka(scene, environ):
        scene.run(("pointsman-server", "check"), settings)

    kept = {f"{name} of {url[-12:]}": text for url in (database_url, audit_url) for name, text in tables(url).items()}
    sent = messages(environ)
    control = found(kept | sent, {"reason": REASON})
    assert {place.split()[2] for place in control} >= {"route_changes", "audit_log", environ["POINTSMAN_KAFKA_TOPIC"]}
    assert found(scene.said | kept | sent, scene.secrets) == []
