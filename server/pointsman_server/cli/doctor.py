"""``pointsman-server doctor``: what is wrong, since when, what still works, and what to do."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client.parser import text_string_to_metric_families

from pointsman_server.adapters import kafka
from pointsman_server.adapters.files.certificates import expires
from pointsman_server.adapters.files.policy import PolicyError, read_policy
from pointsman_server.adapters.postgres.inspection import inspect as inspect_postgres
from pointsman_server.adapters.redis.diagnostics.inspection import inspect as inspect_redis
from pointsman_server.app.dependencies import Dependencies, redis_deployment
from pointsman_server.cli.common import fail, read_settings, require
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import host_and_port
from pointsman_server.diagnosis import engines, running_server, setup
from pointsman_server.diagnosis.finding import Finding, Severity, error, in_order, to_document, to_lines
from pointsman_server.domain.errors import RetryLater
from pointsman_server.ports.broker import BrokerUnavailable
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.runtime import event_loop, machine
from pointsman_server.telemetry.metrics import Metrics

HTTP_SECONDS = 10.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Url = Annotated[
    str, typer.Option(help="The operations port of a running server; else that of this machine.", metavar="URL")
]


def doctor(
    *,
    url: Url = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings alone.")] = False,
) -> None:
    """Say in words what is wrong with a running server and with what it needs, and what to do.

    Reads the health and the metrics of the server, and asks PostgreSQL, Redis and Kafka by the settings of this
    environment: run it where the server runs, as by `kubectl exec`. It changes nothing. Ends with 1 when something does
    not work, and with 0 when there are warnings alone.
    """
    settings = read_settings()
    require(settings)
    if url and not url.startswith(("http://", "https://")):
        fail(f"--url must begin with http:// or https://, as http://127.0.0.1:9464, not {url!r}", code=2)
    found = [
        *_running((url or _own_url(settings)).rstrip("/")),
        *event_loop.run(_engines(settings)),
        *setup.judge_machine(settings, machine.measure()),
        *_policy(settings),
        *_certificates(settings),
    ]
    for finding in in_order(found):
        if quiet and finding.severity is Severity.OK:
            continue
        for line in [json.dumps(to_document(finding))] if as_json else to_lines(finding):
            typer.echo(line)
    raise typer.Exit(1 if any(finding.severity is Severity.ERROR for finding in found) else 0)


def _own_url(settings: Settings) -> str:
    host, port = host_and_port(settings.http_listen)
    here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - what was listened on
    return f"http://{here}:{port}"


def _running(url: str) -> list[Finding]:
    try:
        health = json.loads(_get(f"{url}/health/ready"))
        samples = [
            running_server.Sample(sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(_get(f"{url}/metrics"))
            for sample in family.samples
        ]
    except (OSError, ValueError) as problem:
        remedy = "start it, or name its operations port (POINTSMAN_HTTP_LISTEN) by --url"
        return [error("server", f"does not answer at {url}: {problem}", remedy)]
    return running_server.judge(health, samples, time.time())


def _get(url: str) -> str:
    try:
        with _direct.open(url, timeout=HTTP_SECONDS) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as status:
        # A server that is not ready says why.
        return status.read().decode()


async def _engines(settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    async with Dependencies(settings, Metrics()) as dependencies:
        for ask in (_ask_postgres, _ask_redis, _ask_kafka):
            try:
                found += await ask(settings, dependencies)
            except (RetryLater, CacheUnavailable, BrokerUnavailable) as problem:
                name = ask.__name__.removeprefix("_ask_")
                works, remedy = running_server.DEPENDENCIES[name]
                text = dependencies.database.explain(problem) if name == "postgres" else str(problem)
                found.append(error(name, f"asked from here, {text}", remedy, works=works))
    return found


async def _ask_postgres(settings: Settings, dependencies: Dependencies) -> Iterable[Finding]:
    facts = await inspect_postgres(dependencies.database)
    processes = f"POINTSMAN_WORKERS {settings.workers} × POINTSMAN_DATABASE_POOL_MAX {settings.database_pool_max}"
    return engines.judge_postgres(facts, settings.workers * settings.database_pool_max, processes)


async def _ask_redis(settings: Settings, _dependencies: Dependencies) -> Iterable[Finding]:
    if not settings.redis_url.get_secret_value():
        return []
    found = await inspect_redis(redis_deployment(settings))
    return [finding for facts in found for finding in engines.judge_redis(facts)]


async def _ask_kafka(settings: Settings, dependencies: Dependencies) -> Iterable[Finding]:
    if not settings.kafka_bootstrap_servers:
        return []
    durability = await kafka.read_durability(dependencies.kafka, settings.kafka_topic)
    return engines.judge_topic(settings.kafka_topic, durability)


def _policy(settings: Settings) -> Iterable[Finding]:
    problems, rules = "", 0
    if settings.policy_file:
        try:
            rules = len(read_policy(settings.policy_file).rules)
        except PolicyError as problem:
            problems = str(problem)
    return setup.judge_policy(
        problems, rules, configured=bool(settings.policy_file), authenticates=settings.authenticates
    )


def _certificates(settings: Settings) -> Iterable[Finding]:
    """Judge the files: a server that runs may not have read them yet."""
    for name, path in {"file": settings.tls_cert_file, "CA file": settings.tls_client_ca_file}.items():
        if path:
            yield from _certificate(name, path, expires)


def _certificate(name: str, path: Path, end_of: Callable[[bytes], float]) -> Iterable[Finding]:
    try:
        yield from running_server.certificate(f"{name} {path}", end_of(path.read_bytes()), time.time())
    except (OSError, ValueError) as problem:
        yield error(f"certificate {name} {path}", f"cannot be read: {problem}", "mend the file, or its rights")
