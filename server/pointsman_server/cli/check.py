"""``pointsman-server check``: what the settings are, and whether the dependencies answer."""

from dataclasses import replace

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pointsman_server.adapters import kafka
from pointsman_server.app import envoy
from pointsman_server.app.dependencies import Dependencies, make_monitor
from pointsman_server.app.listening import choose_transport
from pointsman_server.app.start_warnings import start_warnings
from pointsman_server.cli.common import read_settings, require
from pointsman_server.cli.launch import start_errors
from pointsman_server.config.describe import effective
from pointsman_server.config.settings import Settings
from pointsman_server.ops.health_monitor import DependencyState
from pointsman_server.ports.broker import BrokerUnavailable
from pointsman_server.runtime import event_loop
from pointsman_server.telemetry.metrics import Metrics


def check() -> None:
    """Show the effective settings, secrets masked, and try every dependency."""
    settings = read_settings()
    require(settings)
    console = Console()
    console.print(_settings_table(settings))
    with start_errors():
        choice = choose_transport(settings)
        if choice.transport == "envoy":
            envoy.require_directory()
    text = f"transport {choice.transport}: {choice.reason}; it takes {choice.protocols}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    for warning in start_warnings(settings, choice):
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    states, warnings = event_loop.run(_states(settings))
    for state in states:
        colour, word = ("green", "up  ") if state.up else ("red", "down")
        console.print(f"[{colour}]{word}[/] {state.name}: {escape(state.detail)}", soft_wrap=True)
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(state.up for state in states) else 1)


async def _states(settings: Settings) -> tuple[list[DependencyState], list[str]]:
    """Check everything once. Returns the states, and what to warn of besides."""
    async with Dependencies(settings, Metrics()) as dependencies:
        monitor = make_monitor(dependencies)
        await monitor.round()
        states = dict(monitor.states)
        warnings: list[str] = []
        if "kafka" in states and states["kafka"].up:
            states["kafka"], warnings = await _kafka_in_detail(settings, dependencies, states["kafka"])
        return list(states.values()), warnings


async def _kafka_in_detail(
    settings: Settings, dependencies: Dependencies, state: DependencyState
) -> tuple[DependencyState, list[str]]:
    """Ask what a server finds out only when it is refused; and how many brokers the topic may lose."""
    cluster = dependencies.kafka
    try:
        missing = await kafka.missing_rights(cluster, kafka.needs_of(settings))
        durability = await kafka.read_durability(cluster, settings.kafka_topic)
    except BrokerUnavailable as error:
        return replace(state, up=False, detail=str(error)), []
    if missing:
        state = replace(state, up=False, detail=f"Kafka at {cluster.bootstrap_servers} {'; '.join(missing)}")
    return state, list(durability.warnings()) if durability else []


def _settings_table(settings: Settings) -> Table:
    table = Table("variable", "value", "from", title="effective settings", title_justify="left")
    for row in effective(settings):
        table.add_row(row.variable, row.value, row.source)
    return table
