"""``pointsman-server check``: what the settings are, and whether the dependencies answer."""

import asyncio

from rich.console import Console
from rich.table import Table

from pointsman_server.app.application import App
from pointsman_server.config.settings import Settings
from pointsman_server.ops.health_monitor import DependencyState


def run(settings: Settings) -> bool:
    """Print the settings, secrets masked, and the state of every dependency; says whether all of them answer."""
    console = Console()
    console.print(_settings_table(settings))
    states = asyncio.run(_states(settings))
    for state in states:
        console.print(
            f"[{'green' if state.up else 'red'}]{'up  ' if state.up else 'down'}[/] {state.name}: {state.detail}"
        )
    return all(state.up for state in states)


async def _states(settings: Settings) -> list[DependencyState]:
    app = App(settings)
    try:
        await app.database.open()
        if app.audit_database is not app.database:
            await app.audit_database.open()
        await app.monitor.round()
        return list(app.monitor.states.values())
    finally:
        await app.cache.close()
        await app.audit_database.close()
        await app.database.close()


def _settings_table(settings: Settings) -> Table:
    table = Table("variable", "value", "from", title="effective settings", title_justify="left")
    for row in settings.effective():
        table.add_row(row.variable, row.value, row.source)
    return table
