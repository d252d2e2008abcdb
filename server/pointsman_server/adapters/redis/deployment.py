"""How Redis is deployed, as REDIS_URL and the settings beside it say: one Redis, Redis Cluster, or behind Sentinel."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import RedisSSLContext, SSLConnection, parse_url

from pointsman_server.config.types import split_hosts

REDIS_PORT, SENTINEL_PORT = 6379, 26379
Address = tuple[str, int]


class Mode(StrEnum):
    """What the scheme of REDIS_URL may name."""

    SINGLE = "Redis"
    CLUSTER = "Redis Cluster"
    SENTINEL = "Sentinel"

    def node_name(self, address: Address, service: str) -> str:
        """Name a Redis that was found, for operators."""
        what = "Redis Cluster node" if self is Mode.CLUSTER else f"Redis ({service} of Sentinel)"
        return f"{what} at {address[0]}:{address[1]}"


class RereadingConnection(SSLConnection):
    """A TLS connection that reads files that were renewed at its next connect, so they need no restart.

    Authorities that are named are the only ones. Connections share a context, which takes milliseconds to make.
    """

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = _shared_context(self.ssl_context)
        arguments: Mapping[str, Any] = super()._connection_arguments()
        return arguments


@dataclass(frozen=True, slots=True)
class Deployment:
    """``addresses`` are those to begin with: Redis itself, some nodes of a cluster, or Sentinels.

    ``options`` are those of redis-py for a connection to Redis, ``sentinel_options`` for one to Sentinel; both may hold
    passwords. ``service`` is the name under which Sentinel knows the primary.
    """

    mode: Mode
    addresses: tuple[Address, ...]
    options: Mapping[str, Any] = field(repr=False)
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str) -> "Deployment":
        """Read a URL that the settings have accepted."""
        authority, parts = split_hosts(url)
        base, _, kind = parts.scheme.partition("+")
        if not kind:
            options: dict[str, Any] = dict(parse_url(url))
            host, port = options.pop("host", "localhost"), options.pop("port", REDIS_PORT)
            return cls(Mode.SINGLE, ((host, port),), _rereading(options))
        credentials, at, hosts = authority.rpartition("@")
        port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
        addresses = tuple(_address(host, port) for host in hosts.split(","))
        service, _, database = unquote(parts.path).strip("/").partition("/")
        options = dict(parse_url(f"{base}://{credentials}{at}localhost/{database}?{parts.query}"))
        del options["host"]
        if kind == "cluster":
            return cls(Mode.CLUSTER, addresses, _rereading(options))
        of_tls = {name: value for name, value in options.items() if name.startswith(("ssl_", "connection_class"))}
        return cls(Mode.SENTINEL, addresses, _rereading(options), service, _rereading(of_tls))

    def with_files(self, ca: str = "", certificate: str = "", key: str = "") -> "Deployment":
        """Return it with the files of TLS; those that the URL names are replaced."""
        named = {"ssl_ca_certs": ca, "ssl_certfile": certificate, "ssl_keyfile": key}
        files = {name: path for name, path in named.items() if path}
        return replace(self, options={**self.options, **files}, sentinel_options={**self.sentinel_options, **files})

    def with_sentinel_credentials(self, username: str, password: str) -> "Deployment":
        """Return it with the user and the password of the Sentinels; empty ones are left out."""
        given = {"username": username or None, "password": password or None}
        return replace(self, sentinel_options={**self.sentinel_options, **given})

    @property
    def where(self) -> str:
        """Name it as in the texts for operators."""
        listed = ",".join(f"{host}:{port}" for host, port in self.addresses)
        return f"{self.mode} at {self.options.get('path', listed)}"


_contexts: dict[tuple[object, ...], tuple[tuple[int, ...], ssl.SSLContext]] = {}


def _shared_context(wanted: RedisSSLContext) -> ssl.SSLContext:
    """Return the context for these options; a new one where a file has changed."""
    options = tuple(str(getattr(wanted, name)) for name in RedisSSLContext.__slots__ if name != "context")
    files = (wanted.ca_certs, wanted.certfile, wanted.keyfile)
    changed = tuple(Path(path).stat().st_mtime_ns for path in files if path)
    known = _contexts.get(options)
    if known is None or known[0] != changed:
        known = _contexts[options] = (changed, _make_context(wanted))
    return known[1]


def _make_context(wanted: RedisSSLContext) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=wanted.ca_certs, capath=wanted.ca_path, cadata=wanted.ca_data)
    context.check_hostname = wanted.check_hostname
    context.verify_mode = wanted.cert_reqs
    for flag in wanted.include_verify_flags or ():
        context.verify_flags |= flag
    for flag in wanted.exclude_verify_flags or ():
        context.verify_flags &= ~flag
    if wanted.certfile:
        context.load_cert_chain(wanted.certfile, wanted.keyfile, wanted.password)
    if wanted.min_version is not None:
        context.minimum_version = wanted.min_version
    if wanted.ciphers is not None:
        context.set_ciphers(wanted.ciphers)
    return context


def _rereading(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "connection_class": RereadingConnection} if _is_tls(options) else options


def _is_tls(options: Mapping[str, Any]) -> bool:
    return options.get("connection_class") is SSLConnection


def _address(text: str, port: int) -> Address:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or port
