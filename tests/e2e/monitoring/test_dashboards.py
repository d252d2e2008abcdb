"""Every expression of the dashboards and of the alerts has series in a real Prometheus, of real servers under load."""

import asyncio
import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
from confluent_kafka import Producer

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import KeyDraft
from pointsman_server.xds.protocol.types import ResourceType
from tests.support.certificates import Authority, TlsFiles, connect
from tests.support.engines import fresh_database, fresh_redis
from tests.support.kafka import KafkaBroker
from tests.support.processes import free_port, serve, server_process
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.promql import with_values, with_window
from tests.support.rules import dashboards, panels, rules
from tests.support.traffic import Traffic, bearer, key, repeatedly
from tests.support.waiting import eventually
from tests.support.xds_streams import XdsStream, stream

WINDOW = "6s"
# Two calls for as many routes as come at once are more than the rate allows, unless 20 seconds pass between them.
READS_PER_SECOND, BURST_SECONDS = 40, 20
GREEDY = pb.BatchResolveRequest(keys=[key(f"{number}") for number in range(READS_PER_SECOND * BURST_SECONDS)])
# Two servers: one alone that does everything, secured; and two workers of the API.
ONE = {
    "POINTSMAN_ROLES": "api,relay,cache,audit,xds",
    "POINTSMAN_XDS_LISTEN": "127.0.0.1:0",
    "POINTSMAN_API_KEYS": "true",
    "POINTSMAN_HEARTBEAT_SECONDS": "0.3",
    "POINTSMAN_RATE_IDENTITY_READS": str(READS_PER_SECOND),
    "POINTSMAN_RATE_BURST_SECONDS": str(BURST_SECONDS),
    "POINTSMAN_ACCESS_REFRESH_SECONDS": "0.5",
}
TWO = {"POINTSMAN_ROLES": "api"}


@dataclass
class Scene:
    prometheus: Prometheus
    expressions: dict[str, str]

    def missing(self) -> dict[str, str]:
        """Return the expressions without a series that has a value, by what they are of."""
        return {name: asked for name, asked in self.expressions.items() if not has_values(self.prometheus.query(asked))}


def has_values(series: list[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(one["value"][1])) for one in series)


def asked_of_panels() -> dict[str, str]:
    found = {}
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                asked = re.sub(r"\$(namespace|instance)", ".*", target["expr"])
                found[f"{name}: {panel['title']}: {target['refId']}"] = with_window(asked, WINDOW)
    return found


def asked_of_rules() -> dict[str, str]:
    named = ((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules())
    return {name: with_values(with_window(expression, WINDOW)) for name, expression in named}


def recording() -> dict[str, Any]:
    """The rules that record, which panels and alerts read."""
    recorded = [{**rule, "expr": with_window(rule["expr"], WINDOW)} for rule in rules() if "record" in rule]
    return {"groups": [{"name": "recording", "rules": recorded}]}


@pytest.fixture(scope="module")
def scene(
    engines: Any, template_database: str, kafka_broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("monitoring")
    authority, files = Authority(), TlsFiles(directory)
    files.write(authority.server())
    with ExitStack() as stack:
        database_url = stack.enter_context(fresh_database(template_database))
        environ = environment(database_url, fresh_redis(engines.urls["REDIS_URL"]), kafka_broker)
        admin, reader, greedy = asyncio.run(api_keys(database_url))
        audit = {"POINTSMAN_AUDIT_DATABASE_URL": stack.enter_context(fresh_database(template_database))}
        tls = {"POINTSMAN_TLS_CERT_FILE": str(files.cert), "POINTSMAN_TLS_KEY_FILE": str(files.key)}
        ports = {"POINTSMAN_LISTEN": f"127.0.0.1:{free_port()}", "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{free_port()}"}
        workers = stack.enter_context(server_process("serve", "--workers", "2", **(environ | TWO | ports)))
        one, address, http = stack.enter_context(serve(**(environ | ONE | audit | tls)))
        workers.wait_for_log("serving", times=2)
        prometheus = stack.enter_context(running_prometheus(directory, [recording()]))
        prometheus.scrape(http, f"http://{ports['POINTSMAN_HTTP_LISTEN']}")

        channel = stack.enter_context(connect(address, authority))
        traffic = stack.enter_context(Traffic(channel, bearer(admin)).running())
        plain = stack.enter_context(grpc.insecure_channel(ports["POINTSMAN_LISTEN"]))
        stack.enter_context(Traffic(plain, writes=False).running())
        refused = stack.enter_context(Traffic(channel, bearer(reader)).running())
        stack.enter_context(Traffic(channel, bearer("not-a-key")).running())
        stack.enter_context(repeatedly(lambda: traffic.call("BatchResolve", GREEDY, bearer(greedy)), pause=0.3))
        xds = connect(f"127.0.0.1:{one.log('serving')[0]['xds_port']}", authority)
        stack.enter_context(following(stack.enter_context(xds), admin))
        move = pb.UpdateRequest(key=key("followed"), allow_missing=True)
        stack.enter_context(repeatedly(lambda: moved(traffic, move), pause=0.3))
        set_a_poison_message(environ)
        traffic.wait_for_rounds(2)
        refused.wait_for_rounds(2)
        yield Scene(prometheus, asked_of_panels() | asked_of_rules())


@contextmanager
def following(channel: grpc.Channel, credential: str) -> Iterator[None]:
    """Follow a route by xDS until the block ends."""
    with stream(channel, metadata=dict(bearer(credential)), seconds=600) as client:
        for kind in ResourceType:
            client.subscribe(kind, "followed~prod~payments~team-a")
        reading = threading.Thread(target=read_all, args=(client,), daemon=True)
        reading.start()
        yield
    reading.join(30)


def read_all(client: XdsStream) -> None:
    with suppress(grpc.RpcError):
        while True:
            client.acknowledge(client.read())


def moved(traffic: Traffic, move: pb.UpdateRequest) -> None:
    move.url = f"https://{os.urandom(4).hex()}.internal:8443"
    traffic.call("Update", move)


def environment(database_url: str, redis_url: str, broker: KafkaBroker) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"route-events-{os.urandom(4).hex()}",
        "POINTSMAN_KAFKA_PARTITIONS": "2",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "2",
    }


async def api_keys(database_url: str) -> list[str]:
    """Make a key that may do everything, one that may read another tenant, and one that reads much."""
    database = Database(database_url, pool_min=1, pool_max=1, timeout=30)
    await database.open()
    texts = []
    for name, grant in (("ops", "admin:*"), ("reader", "reader:team-b"), ("greedy", "reader:team-a")):
        minted = mint()
        texts.append(minted.text)
        await PostgresApiKeyStore(database).create(
            KeyDraft(name, (parse_grant(grant),), "ann", timedelta(days=1)), minted
        )
    await database.close()
    return texts


def set_a_poison_message(environ: dict[str, str]) -> None:
    producer = Producer({"bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"]})
    producer.produce(environ["POINTSMAN_KAFKA_TOPIC"], b"\xff")
    assert producer.flush(30) == 0


def test_every_expression_has_series(scene: Scene) -> None:
    assert eventually(lambda: not scene.missing(), 60), list(scene.missing())
    assert scene.prometheus.broken_rules() == []


def test_two_workers_show_as_two_and_one_server_as_one(scene: Scene) -> None:
    workers = scene.prometheus.query("sort(pointsman_workers)")
    assert [float(one["value"][1]) for one in workers] == [1, 2]
    memory = scene.prometheus.query("process_resident_memory_bytes")
    assert len(memory) == 3
    assert len({one["metric"].get("pid", "") for one in memory}) == 3


def test_a_metric_that_is_not_there_would_be_noticed(scene: Scene) -> None:
    assert not has_values(scene.prometheus.query("rate(pointsman_nothing_total[6s])"))
