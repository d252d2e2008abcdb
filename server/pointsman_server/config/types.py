"""The kinds of values that settings have, and their checks.

What a check raises is the end of a sentence that begins with the name of the setting.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

_URL_PASSWORD = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*:)[^\s/]*@")
_URL_QUERY_PASSWORD = re.compile(r"((?i:[?&](?:ssl)?password=))[^\s&#]+")
_URL_HOST = re.compile(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::[0-9]*)?")
_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^\s:/@\[\]]+)):(?P<port>[0-9]{1,5})")


# Signatures by keys of the issuer alone. None by a shared secret (HS256): a verifier of such a JWT can also issue
# one, and a public key taken for the secret is the classic way in (RFC 8725 §2.1).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class ServerRole(StrEnum):
    """One job that a server process can do."""

    API = "api"
    RELAY = "relay"
    CACHE = "cache"
    AUDIT = "audit"
    XDS = "xds"


# The roles that are called by gRPC.
CALLED = frozenset({ServerRole.API, ServerRole.XDS})
# What a process does that is not told otherwise.
DEFAULT_ROLES = frozenset({ServerRole.API, ServerRole.RELAY, ServerRole.CACHE, ServerRole.AUDIT})


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a value may be, in words, where its type does not say it."""

    text: str


def mask_credentials(text: str) -> str:
    """Replace the password of every URL in ``text`` by ``***``; user and host stay."""
    if "://" not in text:
        return text
    return _URL_QUERY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))


def host_and_port(address: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[IPv6]:port``. Raises ValueError when ``address`` is neither."""
    match = _ADDRESS.fullmatch(address)
    if not match or int(match["port"]) > 65535:
        raise ValueError(f"must be host:port, such as 127.0.0.1:50051 or [::1]:50051, not {address!r}")
    if match["v6"]:
        try:
            IPv6Address(match["v6"])
        except ValueError:
            raise ValueError(f"must have an IPv6 address between the brackets, not {address!r}") from None
    return match["v6"] or match["host"], int(match["port"])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches ``host``; of names, localhost alone is known to be such."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Find the option nearest to ``word``, if any is near."""
    from difflib import get_close_matches  # for those who misspell only

    return next(iter(get_close_matches(word, options, n=1)), None)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """End a complaint about ``word`` with the nearest option, if any is near."""
    option = nearest(word, options)
    return f": did you mean {option}?" if option else ""


def _address(address: str) -> str:
    host_and_port(address)
    return address


def _bootstrap_servers(servers: str) -> str:
    addresses = [server.strip() for server in servers.split(",")] if servers else []
    for address in addresses:
        if host_and_port(address)[1] == 0:
            raise ValueError(f"must name a port other than 0, not {address!r}")
    return ",".join(addresses)


def _url(*schemes: str) -> Callable[[SecretStr], SecretStr]:
    """Make a check for URLs with one of ``schemes``. Its errors never quote the URL: it holds a password."""

    def check(secret: SecretStr) -> SecretStr:
        if not secret:
            return secret
        scheme, separator, _ = secret.get_secret_value().partition("://")
        if not separator or scheme not in schemes:
            raise ValueError(f"must be a URL that starts with {' or '.join(f'{name}://' for name in schemes)}")
        if not _has_plain_hosts(secret.get_secret_value()):
            raise ValueError(
                f"must be {scheme}://user:password@host:port/…: percent-encode special characters of the password"
            )
        return secret

    return check


def _redis_url(secret: SecretStr) -> SecretStr:
    """Check the path, which is the database, but for Sentinel the name of the primary comes first."""
    hosts, parts = split_hosts(secret.get_secret_value())
    if parts.scheme == "unix" or not parts.scheme:
        return secret
    kind, (first, _, rest) = parts.scheme.partition("+")[2], parts.path.strip("/").partition("/")
    if kind == "sentinel" and not first:
        raise ValueError(f"must be {parts.scheme}://host:26379,host:26379/name: the name is that of the primary")
    database = rest if kind == "sentinel" else first
    if database and not database.isdecimal():
        raise ValueError(f"must end in the number of a database, such as {parts.scheme}://host:port/0")
    if kind == "cluster" and int(database or 0):
        raise ValueError("must not name a database: Redis Cluster has database 0 alone")
    if not kind and "," in hosts.rpartition("@")[2]:
        raise ValueError(f"must name one host: several are {parts.scheme}+cluster:// or {parts.scheme}+sentinel://")
    return secret


def _postgres_urls(secret: SecretStr) -> SecretStr:
    """Check URLs that are separated by spaces: a comma separates the hosts of one."""
    urls = secret.get_secret_value().split()
    for url in urls:
        _postgres_url(SecretStr(url))
    return SecretStr(" ".join(urls))


def _has_plain_hosts(url: str) -> bool:
    """Tell whether ``url`` names hosts (PostgreSQL takes several), and no part of a password has become one."""
    hosts = split_hosts(url)[0].rpartition("@")[2]
    return all(_URL_HOST.fullmatch(host) for host in hosts.split(","))


def split_hosts(url: str) -> tuple[str, SplitResult]:
    """Return the credentials and hosts of a URL, and its parts without them.

    Several hosts with an IPv6 address among them are no URL to urllib, from Python 3.14 on.
    """
    scheme, separator, rest = url.partition("://")
    hosts = re.split(r"[/?#]", rest, maxsplit=1)[0] if separator else ""
    return hosts, urlsplit(scheme + separator + rest.removeprefix(hosts))


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _roles(value: object) -> frozenset[ServerRole]:
    if isinstance(value, str):
        value = [role.strip().lower() for role in value.split(",") if role.strip()]
    if not isinstance(value, Collection) or not value:
        raise ValueError(f"must name at least one of {', '.join(ServerRole)}")
    for role in value:
        if role not in set(ServerRole):
            hint = did_you_mean(str(role), ServerRole) or f": the roles are {', '.join(ServerRole)}"
            raise ValueError(f"has an unknown role {str(role)!r}{hint}")
    return frozenset(ServerRole(role) for role in value)


def _algorithms(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, Collection) or not value:
        raise ValueError(f"must name at least one of {', '.join(ALGORITHMS)}")
    for name in value:
        if name not in ALGORITHMS:
            hint = did_you_mean(str(name), ALGORITHMS) or f": the algorithms are {', '.join(ALGORITHMS)}"
            raise ValueError(f"has an unknown algorithm {str(name)!r}{hint}")
    return tuple(value)


def _origins(value: object) -> tuple[object, ...]:
    if isinstance(value, str):
        value = [origin.strip() for origin in value.split(",") if origin.strip()]
    origins = tuple(value) if isinstance(value, Collection) else (value,)
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^\s/@?#*]+", str(origin)):
            raise ValueError(f"must be origins such as https://app.example.com, or *, not {str(origin)!r}")
    return origins


def _http_url(url: str) -> str:
    if url and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", url):
        raise ValueError("must be an http:// or https:// URL without credentials")
    return url


_postgres_url = _url("postgresql", "postgres")

AnyCase = BeforeValidator(_lower)
Address = Annotated[str, AfterValidator(_address), Allowed("host:port; port 0 takes a free one")]
BootstrapServers = Annotated[str, AfterValidator(_bootstrap_servers), Allowed("host:port, comma separated")]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url), Allowed("a postgresql:// URL")]
PostgresUrls = Annotated[SecretStr, AfterValidator(_postgres_urls), Allowed("postgresql:// URLs, separated by spaces")]
REDIS_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"),
)
RedisUrl = Annotated[
    SecretStr,
    AfterValidator(_url(*REDIS_SCHEMES)),
    AfterValidator(_redis_url),
    Allowed("a redis:// or rediss:// URL, with +cluster or +sentinel after the scheme"),
]
ServerRoles = Annotated[
    frozenset[ServerRole], BeforeValidator(_roles), Allowed(f"{', '.join(ServerRole)}; comma separated")
]
Algorithms = Annotated[
    tuple[str, ...], BeforeValidator(_algorithms), Allowed(f"{', '.join(ALGORITHMS)}; comma separated")
]
Origins = Annotated[
    tuple[str, ...],
    BeforeValidator(_origins),
    Allowed("origins such as https://app.example.com, or *; comma separated"),
]
HttpUrl = Annotated[str, AfterValidator(_http_url), Allowed("an http:// or https:// URL")]
OptionalPath = Annotated[Path | None, Allowed("a path")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$"), Allowed("1 to 249 of A-Z a-z 0-9 . _ -")]
GroupPrefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$"), Allowed("1 to 200 of A-Z a-z 0-9 . _ -")]
SaslMechanism = Annotated[
    Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
    BeforeValidator(_upper),
    Allowed("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"),
]
SECRET = Allowed("a secret")
Secret = Annotated[SecretStr, SECRET]
SaslExtensions = Annotated[
    str, Field(pattern=r"^(|[A-Za-z]+=[^,=]+(,[A-Za-z]+=[^,=]+)*)$"), Allowed("key=value, comma separated")
]
KeyPrefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$"), Allowed("1 to 64 of A-Z a-z 0-9 . _ - :")]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
LongSeconds = Annotated[float, Field(gt=0, le=604800, allow_inf_nan=False)]
PerSecond = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
ConnectionSeconds = Annotated[float, Field(ge=0, le=604800, allow_inf_nan=False)]
Switch = Annotated[bool, Allowed("true or false")]
