"""A cluster of three Kafka brokers as it is deployed: TLS, SASL, client certificates, and an authorizer.

Each broker has three listeners: PLAINTEXT, between the brokers and for tests, whose user may do everything; SASL_SSL
with every mechanism; and TLS with client certificates. Others may do only what ``allow`` grants them.
"""

import base64
import json
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from confluent_kafka import admin as driver
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.support import kafka
from tests.support.certificates import Authority, Pair
from tests.support.issuer import SigningKey, jwks

BROKERS = 3
AUDIENCE = "kafka"
PASSWORD = "the-password"
MECHANISMS = {
    "SCRAM-SHA-256": driver.ScramMechanism.SCRAM_SHA_256,
    "SCRAM-SHA-512": driver.ScramMechanism.SCRAM_SHA_512,
}
ISSUER_KEY = SigningKey(kind="RSA")
ANSWER_SECONDS = 30.0

SETTINGS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "min.insync.replicas": "1",
    "listener.name.secured.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
    "listener.name.secured.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'user_plain="{PASSWORD}";',
    "listener.name.secured.oauthbearer.sasl.server.callback.handler.class": "org.apache.kafka.common.security."
    "oauthbearer.OAuthBearerValidatorCallbackHandler",
    "listener.name.secured.oauthbearer.sasl.jaas.config": "org.apache.kafka.common.security.oauthbearer."
    "OAuthBearerLoginModule required;",
    "listener.name.secured.sasl.oauthbearer.expected.audience": AUDIENCE,
    "listener.name.certified.ssl.client.auth": "required",
    "listener.name.certified.ssl.principal.mapping.rules": "RULE:^CN=([^,]*).*$/$1/,DEFAULT",
} | {
    f"listener.name.secured.{mechanism.lower()}.sasl.jaas.config": "org.apache.kafka.common.security.scram."
    "ScramLoginModule required;"
    for mechanism in MECHANISMS
}


@dataclass
class TokenServer:
    """An OAuth token endpoint. ``secrets``: by client id."""

    url: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    scopes: list[str] = field(default_factory=list)


@dataclass
class SecuredCluster:
    """The running cluster. ``sasl`` and ``mtls`` are its addresses for servers; ``plaintext`` is for tests."""

    directory: Path
    authority: Authority
    brokers: Sequence[kafka.KafkaBroker]
    tokens: TokenServer

    @property
    def plaintext(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    @property
    def sasl(self) -> str:
        return self._servers("SECURED")

    @property
    def mtls(self) -> str:
        return self._servers("CERTIFIED")

    @cached_property
    def admin(self) -> AdminClient:
        return kafka.admin(self.plaintext)

    def _servers(self, listener: str) -> str:
        return ",".join(f"127.0.0.1:{broker.ports[listener]}" for broker in self.brokers)

    def password(self, user: str, password: str, mechanism: str = "SCRAM-SHA-512") -> None:
        """Make a SCRAM user, or change its password."""
        info = driver.ScramCredentialInfo(MECHANISMS[mechanism], 4096)
        wanted = driver.UserScramCredentialUpsertion(user, info, password.encode())
        finish(self.admin.alter_user_scram_credentials([wanted]))

    def allow(self, user: str, operation: str, resource: str, name: str) -> None:
        """Let ``user`` do ``operation`` (READ, WRITE, …) to a TOPIC, GROUP or the BROKER named ``name``."""
        finish(self.admin.create_acls([_binding(user, operation, resource, name)]))

    def serve(self, user: str, topic: str, prefix: str = "pointsman") -> None:
        """Grant what a server with every role needs, of topics that are there."""
        self.allow(user, "READ", "TOPIC", topic)
        self.allow(user, "WRITE", "TOPIC", topic)
        self.allow(user, "WRITE", "TOPIC", f"{topic}.dead-letters")
        for group in ("cache", "audit"):
            self.allow(user, "READ", "GROUP", f"{prefix}-{group}")

    def create(self, *topics: str) -> None:
        """Create topics with three replicas, of which two must have each message."""
        config = {"min.insync.replicas": "2"}
        finish(self.admin.create_topics([driver.NewTopic(name, 3, BROKERS, config=config) for name in topics]))

    def scram(self, user: str, password: str = PASSWORD, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """Return the environment of a server that logs in so."""
        return self._tls(self.sasl, "sasl_ssl") | {
            "POINTSMAN_KAFKA_SASL_MECHANISM": mechanism,
            "POINTSMAN_KAFKA_SASL_USERNAME": user,
            "POINTSMAN_KAFKA_SASL_PASSWORD": password,
        }

    def oauth(self, client: str, secret: str) -> dict[str, str]:
        """Return the environment of a server that shows a token."""
        return self._tls(self.sasl, "sasl_ssl") | {
            "POINTSMAN_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "POINTSMAN_KAFKA_OAUTH_TOKEN_URL": self.tokens.url,
            "POINTSMAN_KAFKA_OAUTH_CLIENT_ID": client,
            "POINTSMAN_KAFKA_OAUTH_CLIENT_SECRET": secret,
            "POINTSMAN_KAFKA_OAUTH_SCOPE": "kafka",
        }

    def certified(self, directory: Path) -> dict[str, str]:
        """Return the environment of a server that shows the certificate in ``directory``."""
        return self._tls(self.mtls, "ssl") | {
            "POINTSMAN_KAFKA_CERT_FILE": str(directory / "client.crt"),
            "POINTSMAN_KAFKA_KEY_FILE": str(directory / "client.key"),
        }

    def certify(self, directory: Path, user: str, days: float = 1) -> None:
        """Write a certificate of ``user`` and its key; with fewer ``days`` than none it has expired."""
        pair = self.authority.client(cn=user, days=days)
        (directory / "client.crt").write_bytes(pair.cert)
        (directory / "client.key").write_bytes(pair.key)

    def _tls(self, servers: str, protocol: str) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "POINTSMAN_KAFKA_SECURITY_PROTOCOL": protocol,
            "POINTSMAN_KAFKA_CA_FILE": str(self.directory / "ca.pem"),
        }


def _binding(user: str, operation: str, resource: str, name: str) -> driver.AclBinding:
    return driver.AclBinding(
        driver.ResourceType[resource],
        name,
        driver.ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        driver.AclOperation[operation],
        driver.AclPermissionType.ALLOW,
    )


def finish(futures: dict[Any, Future[Any]]) -> None:
    """Wait for the results of an admin client, and raise what failed."""
    for future in futures.values():
        future.result(ANSWER_SECONDS)


@contextmanager
def secured_cluster() -> Iterator[SecuredCluster]:
    """Run the cluster until the block ends."""
    kafka.fetch()
    with tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True) as name, token_server() as tokens:
        directory, authority = Path(name), Authority()
        (directory / "ca.pem").write_bytes(authority.pem)
        (directory / "keys.json").write_bytes(jwks(ISSUER_KEY))
        (directory / "broker.pem").write_bytes(_pkcs8(authority.server()))
        brokers = kafka.cluster(directory, BROKERS, _more(directory))
        try:
            for broker in brokers:
                broker.start(wait=False)
            for broker in brokers:
                broker.wait_ready()
            yield SecuredCluster(directory, authority, brokers, tokens)
        finally:
            for broker in brokers:
                broker.kill()


def _more(directory: Path) -> kafka.More:
    keys = f"file://{directory}/keys.json"
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{directory}/broker.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{directory}/ca.pem",
        "listener.name.secured.sasl.oauthbearer.jwks.endpoint.url": keys,
    }
    return kafka.More(
        {"SECURED": "SASL_SSL", "CERTIFIED": "SSL"},
        SETTINGS | tls,
        (f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}",),
    )


def _pkcs8(pair: Pair) -> bytes:
    """Write both as Kafka reads them."""
    key = load_pem_private_key(pair.key, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pair.cert


@contextmanager
def token_server() -> Iterator[TokenServer]:
    """Serve an OAuth token endpoint (client credentials) on loopback until the block ends."""
    state = TokenServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            state.scopes += form.get("scope", [])
            client = _client(self.headers["authorization"] or "", state)
            token = ISSUER_KEY.token(sub=client, aud=AUDIENCE)
            found = {"access_token": token, "token_type": "Bearer", "expires_in": 600} if client else DENIED
            body = json.dumps(found).encode()
            self.send_response(200 if client else 401)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/token"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


DENIED = {"error": "invalid_client", "error_description": "no such client, or another secret"}


def _client(authorization: str, state: TokenServer) -> str:
    """Return the id of the client that shows its secret (RFC 6749 §2.3.1); empty when it is another's."""
    scheme, _, shown = authorization.partition(" ")
    identity, _, secret = base64.b64decode(shown).decode().partition(":") if scheme == "Basic" else ("", "", "")
    return identity if secret and state.secrets.get(identity) == secret else ""
