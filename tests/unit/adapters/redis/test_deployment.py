import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection

from pointsman_server.adapters.redis.deployment import Deployment, Mode, RereadingConnection
from tests.support.certificates import Authority, TlsFiles


@pytest.mark.parametrize(
    ("url", "mode", "addresses", "service", "where"),
    [
        ("redis://", Mode.SINGLE, [("localhost", 6379)], "", "Redis at localhost:6379"),
        ("redis://h:7000/3", Mode.SINGLE, [("h", 7000)], "", "Redis at h:7000"),
        ("unix:///run/redis.sock", Mode.SINGLE, [("localhost", 6379)], "", "Redis at /run/redis.sock"),
        (
            "rediss+cluster://u:p@a,b:7000,[::1]:7001",
            Mode.CLUSTER,
            [("a", 6379), ("b", 7000), ("::1", 7001)],
            "",
            "Redis Cluster at a:6379,b:7000,::1:7001",
        ),
        (
            "redis+sentinel://a,b:26380/main/2",
            Mode.SENTINEL,
            [("a", 26379), ("b", 26380)],
            "main",
            "Sentinel at a:26379,b:26380",
        ),
    ],
)
def test_the_scheme_says_how_redis_is_deployed(url: str, mode: Mode, addresses, service: str, where: str) -> None:
    deployment = Deployment.parse(url)
    assert (deployment.mode, list(deployment.addresses), deployment.service) == (mode, addresses, service)
    assert deployment.where == where


def test_credentials_and_database_are_those_of_redis_and_not_of_sentinel() -> None:
    deployment = Deployment.parse("redis+sentinel://u:p%40ss@a/main/2")
    assert deployment.options == {"username": "u", "password": "p@ss", "db": 2}
    assert deployment.sentinel_options == {}
    named = deployment.with_sentinel_credentials("s", "other")
    assert named.sentinel_options == {"username": "s", "password": "other"}
    assert named.options == deployment.options
    assert "p@ss" not in repr(named)
    assert "other" not in repr(named)


@pytest.mark.parametrize("url", ["rediss://h", "rediss+cluster://h", "rediss+sentinel://h/main"])
def test_tls_rereads_its_files_and_verifies_by_default(url: str) -> None:
    deployment = Deployment.parse(url).with_files("ca.pem", "cert.pem", "key.pem")
    each = [deployment.options] + ([deployment.sentinel_options] if "sentinel" in url else [])
    for options in each:
        assert options["connection_class"] is RereadingConnection
        assert (options["ssl_ca_certs"], options["ssl_certfile"], options["ssl_keyfile"]) == (
            "ca.pem",
            "cert.pem",
            "key.pem",
        )
        assert "ssl_cert_reqs" not in options
    connection = SSLConnection()
    assert connection.ssl_context.check_hostname
    assert connection.ssl_context.cert_reqs.name == "CERT_REQUIRED"


def test_files_that_changed_are_read_at_the_next_connect(tmp_path: Path) -> None:
    authority, files = Authority(), TlsFiles(tmp_path)
    files.write(authority.server(), authority.pem)
    named: Any = {"ssl_ca_certs": str(files.client_ca), "ssl_certfile": str(files.cert), "ssl_keyfile": str(files.key)}
    one, other = RereadingConnection(**named), RereadingConnection(**named)
    first = one._connection_arguments()["ssl"]
    assert other._connection_arguments()["ssl"] is first
    # Those of the system are not trusted beside it.
    assert len(first.get_ca_certs()) == 1
    assert (first.verify_mode, first.check_hostname) == (ssl.CERT_REQUIRED, True)
    files.write(authority.server(), authority.pem)
    os.utime(files.cert, ns=(1, 1))
    assert one._connection_arguments()["ssl"] is not first


def test_options_of_the_url_hold_for_tls() -> None:
    options: Any = {"ssl_cert_reqs": "none", "ssl_min_version": ssl.TLSVersion.TLSv1_3, "ssl_ciphers": "ECDHE+AESGCM"}
    made = RereadingConnection(**options)._connection_arguments()["ssl"]
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_NONE, False)
    assert made.minimum_version is ssl.TLSVersion.TLSv1_3


def test_the_files_of_the_url_stay_unless_the_settings_name_others() -> None:
    url = "rediss://h?ssl_ca_certs=url.pem&ssl_cert_reqs=none"
    assert Deployment.parse(url).with_files().options["ssl_ca_certs"] == "url.pem"
    assert Deployment.parse(url).with_files("ca.pem").options["ssl_ca_certs"] == "ca.pem"
    assert Deployment.parse(url).options["ssl_cert_reqs"] == "none"


def test_nodes_are_named_for_operators() -> None:
    assert Mode.CLUSTER.node_name(("h", 1), "") == "Redis Cluster node at h:1"
    assert Mode.SENTINEL.node_name(("h", 1), "main") == "Redis (main of Sentinel) at h:1"
