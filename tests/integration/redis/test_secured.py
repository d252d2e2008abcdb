"""Redis with TLS, client certificates and a user of its own."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman import Client
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.ports.cache import CacheUnavailable
from tests.support.certificates import Authority, TlsFiles
from tests.support.processes import get_json, run
from tests.support.redis_cluster import debian_redis
from tests.support.redis_server import RedisServer, free_port
from tests.support.route_cache import K1, PATIENCE, at, complaint, hit, settle
from tests.support.servers import serving, settings
from tests.support.waiting import eventually

OPERATING = Path(__file__).parents[3] / "docs" / "operating.md"
KEY, URL = "team-a/payments/prod/v1", "https://payments.internal"
USER, PASSWORD = "app", "canary-0123456789"


@dataclasses.dataclass(frozen=True)
class Site:
    """A Redis that wants TLS, our certificate and our password."""

    server: RedisServer
    port: int
    authority: Authority
    files: TlsFiles

    @property
    def url(self) -> str:
        return f"rediss://{USER}:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.url,
            "POINTSMAN_REDIS_CA_FILE": str(self.files.client_ca),
            "POINTSMAN_REDIS_CERT_FILE": str(self.files.cert),
            "POINTSMAN_REDIS_KEY_FILE": str(self.files.key),
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("secured")
    authority, port = Authority(), free_port()
    ours, files = TlsFiles(directory / "ours"), TlsFiles(directory / "redis")
    for each, pair in ((ours, authority.client(cn=USER)), (files, authority.server())):
        each.directory.mkdir()
        each.write(pair, authority.pem)
    server = debian_redis(directory / "data")
    try:
        server.start(
            *("--bind", "127.0.0.1", "127.0.0.2", "--tls-port", str(port), "--tls-auth-clients", "yes"),
            *("--tls-cert-file", str(files.cert), "--tls-key-file", str(files.key)),
            *("--tls-ca-cert-file", str(files.client_ca)),
        )
        rights = next(line for line in OPERATING.read_text().splitlines() if "+evalsha" in line)
        server.run("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rights.strip().strip("`").split())
        yield Site(server, port, authority, ours)
    finally:
        server.stop()


def files_of(files: TlsFiles, url: str) -> Deployment:
    return Deployment.parse(url).with_files(str(files.client_ca), str(files.cert), str(files.key))


async def test_a_certificate_a_password_and_few_rights_are_enough(site: Site) -> None:
    cache = RedisCache(files_of(site.files, site.url), timeout=PATIENCE)
    await cache.ping()
    await settle(cache, at(5))
    assert await cache.get([K1], "reader") == [hit(at(5))]
    await cache.close()


async def test_what_is_wrong_is_told_without_the_password(site: Site, tmp_path: Path) -> None:
    stranger = TlsFiles(tmp_path)
    stranger.write(Authority().client(), Authority().pem)
    good = Deployment.parse(site.url)
    found = {
        "theirs unknown": await complaint(good.with_files("", str(site.files.cert), str(site.files.key))),
        "another authority": await complaint(files_of(stranger, site.url)),
        "no certificate of ours": await complaint(good.with_files(str(site.files.client_ca))),
        "another name": await complaint(files_of(site.files, site.url.replace("127.0.0.1", "127.0.0.2"))),
        "no TLS": await complaint(Deployment.parse(site.url.replace("rediss", "redis"))),
        "another password": await complaint(files_of(site.files, site.url.replace(PASSWORD, "guess"))),
    }
    assert "fails in TLS" in found["theirs unknown"]
    assert "fails in TLS" in found["another authority"]
    assert found["no certificate of ours"]
    assert "fails in TLS" in found["another name"]
    assert "does not answer" in found["no TLS"]
    assert "refuses the user or the password of REDIS_URL" in found["another password"]
    assert not any(PASSWORD in text or "guess" in text for text in found.values())


async def test_a_renewed_certificate_is_read_at_the_next_connect(site: Site, tmp_path: Path) -> None:
    renewed = TlsFiles(tmp_path)
    renewed.write(Authority().client(), site.authority.pem)
    cache = RedisCache(files_of(renewed, site.url), timeout=PATIENCE)
    with pytest.raises(CacheUnavailable):
        await cache.ping()
    renewed.write(site.authority.client(cn=USER))
    await cache.ping()
    await cache.close()


def test_a_user_who_may_not_run_scripts_is_named(site: Site, database_url: str) -> None:
    environ = {"DATABASE_URL": database_url, "POINTSMAN_ROLES": "api", **site.environ}
    checked = run("pointsman-server", "check", **environ)
    assert "up   redis: ok" in checked.stdout
    site.server.run("ACL", "SETUSER", USER, "-evalsha")
    try:
        checked = run("pointsman-server", "check", **environ)
    finally:
        site.server.run("ACL", "SETUSER", USER, "+evalsha")
    assert checked.returncode == 1
    assert f"down redis: Redis at 127.0.0.1:{site.port} does not let the user of REDIS_URL run scripts" in " ".join(
        checked.stdout.split()
    )
    assert PASSWORD not in checked.stdout + checked.stderr


def test_a_server_uses_it(site: Site, database_url: str) -> None:
    chosen = settings(
        database_url=database_url,
        redis_url=site.url,
        redis_ca_file=site.files.client_ca,
        redis_cert_file=site.files.cert,
        redis_key_file=site.files.key,
    )
    with serving(chosen) as server, Client(server.address) as client:
        client.create(KEY, URL)
        assert client.resolve(KEY).url == URL
        state = eventually(lambda: get_json(f"{server.http}/health/ready")[1]["dependencies"]["redis"]["up"])
        assert state
    assert site.server.client.keys("pointsman:*team-a*")
