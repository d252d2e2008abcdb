"""The commands of ``pointsman traffic`` that only read: get and list."""

import typer

from pointsman.cli.context import AsOf, Env, Family, Json, Service, Tenant, settings
from pointsman.cli.moments import moment_of
from pointsman.cli.output.documents import traffic_document
from pointsman.cli.output.text import show_traffic, time_text, traffic_text
from pointsman.results import Traffic

LARGEST_PAGE = 1000


def get(context: typer.Context, family: Family, as_of: AsOf = "", as_json: Json = False) -> None:
    """Show the traffic of a service, as it is or as it was."""
    moment = moment_of(as_of)
    with settings(context).client(as_json) as client:
        traffic = client.get_traffic(family, as_of=moment)
    show_traffic(settings(context).terminal(as_json), traffic)


def list_traffic(
    context: typer.Context, tenant: Tenant = "", service: Service = "", env: Env = "", as_json: Json = False
) -> None:
    """List the traffic that matches, in the order of its keys."""
    terminal = settings(context).terminal(as_json)
    with settings(context).client(as_json) as client:
        every = list(client.list_traffic(tenant=tenant, service=service, env=env, page_size=LARGEST_PAGE))
    if terminal.as_json:
        terminal.document([traffic_document(traffic) for traffic in every])
    elif every:
        terminal.table(("KEY", "TRAFFIC", "REVISION", "UPDATED"), map(_row, every))
    else:
        terminal.note("no traffic matches")


def _row(traffic: Traffic) -> tuple[str, ...]:
    return str(traffic.key), traffic_text(traffic), str(traffic.revision), time_text(traffic.update_time)
