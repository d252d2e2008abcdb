"""The command line: every command under its name, and what its group says of it.

A command's module, and with it the drivers, is loaded when the command runs: ``--help`` is quick, and ``serve
--workers`` supervises from a process that has loaded neither grpc nor Kafka.
"""

import time
from collections.abc import Mapping
from typing import ClassVar

import typer

from pointsman_server.cli.lazy import Command, Group, LazyGroup

STARTED = time.monotonic()
"""When this process began, in monotonic seconds."""

AUDIT = Group(
    {
        "verify": Command("pointsman_server.cli.audit:verify", "Recompute the hash chain of the audit log."),
        "compact": Command(
            "pointsman_server.cli.database.compact:compact_audit", "Delete old rows; the rest still verifies."
        ),
    },
    "The audit log: who changed what, chained by hashes.",
)

DEAD_LETTERS = Group(
    {
        "list": Command("pointsman_server.cli.dead_letters:list_dead_letters", "List the dead letters."),
        "replay": Command("pointsman_server.cli.dead_letters:replay", "Send those that can be decoded now again."),
    },
    "Messages of the topic that could not be decoded.",
)

POLICY = Group(
    {
        "explain": Command("pointsman_server.cli.policy:explain", "Say whether somebody may do something, and why."),
        "check": Command("pointsman_server.cli.policy:check", "Say whether a policy is fine, and name what is wrong."),
    },
    "Who may do what: POINTSMAN_POLICY_FILE.",
)

KEYS = Group(
    {
        "create": Command("pointsman_server.cli.keys:create", "Make a key, and print it on stdout, this once."),
        "list": Command("pointsman_server.cli.keys:list_keys", "List the keys. Never a key itself."),
        "rotate": Command("pointsman_server.cli.keys:rotate", "Make a new key of the same name and grants."),
        "revoke": Command("pointsman_server.cli.keys:revoke", "Revoke keys, at once and for good."),
    },
    "API keys, for callers without a JWT or a client certificate (POINTSMAN_API_KEYS).",
)


class Commands(LazyGroup):
    """Every command, in the order of the help."""

    entries: ClassVar[Mapping[str, Command | Group]] = {
        "dev": Command(
            "pointsman_server.cli.dev:dev",
            "Run everything on this machine, with nothing to set up: PostgreSQL, Redis and Kafka come along.",
        ),
        "serve": Command(
            "pointsman_server.cli.serve:serve",
            "Run a server with the engines of DATABASE_URL, REDIS_URL and KAFKA_BOOTSTRAP_SERVERS.",
        ),
        "migrate": Command(
            "pointsman_server.cli.database.migrate:migrate", "Bring the schema of DATABASE_URL to the newest revision."
        ),
        "restore": Command(
            "pointsman_server.cli.database.restore:restore",
            "Finish the restore of a backup: give the database at DATABASE_URL a new epoch.",
        ),
        "compact": Command(
            "pointsman_server.cli.database.compact:compact", "Delete old changes from the history of DATABASE_URL."
        ),
        "check": Command(
            "pointsman_server.cli.check:check", "Show the effective settings, secrets masked, and try every dependency."
        ),
        "doctor": Command(
            "pointsman_server.cli.doctor:doctor",
            "Say in words what is wrong with a running server and with what it needs, and what to do.",
        ),
        "audit": AUDIT,
        "dead-letters": DEAD_LETTERS,
        "policy": POLICY,
        "keys": KEYS,
    }


app = typer.Typer(
    name="pointsman-server",
    cls=Commands,
    help="Tells every internal service which URL is live for tenant / service / env / version.",
    epilog="Every setting is an environment variable: `pointsman-server check` shows them. "
    "Exit codes: 0 done, 1 failed, 2 wrong settings or usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def no_options() -> None:
    """Make ``app`` a group though its commands are not registered with it."""


def main() -> None:
    """Run the command line; the entry point of ``pointsman-server``."""
    app()
