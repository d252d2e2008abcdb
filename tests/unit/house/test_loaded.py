"""What a server loads: only what it uses, as each of these is megabytes of an empty one."""

import subprocess
import sys

import pytest

SERVER = "import pointsman_server.__main__, pointsman_server.cli.serve, pointsman_server.app.application"


def loaded(program: str, names: set[str]) -> set[str]:
    """Run ``program`` in a process of its own, and return which of the modules it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*({names!r} & set(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_a_server_loads_what_only_some_use_when_they_use_it() -> None:
    rarely = {"alembic", "confluent_kafka", "cryptography.x509", "httpx", "jwt", "rich.console", "sqlalchemy"}
    assert loaded(SERVER, rarely) == set()


def test_what_speaks_to_kafka_can_be_loaded_as_a_whole() -> None:
    wanted = {
        "confluent_kafka.admin",
        "pointsman_server.adapters.kafka.group_consumer",
        "pointsman_server.adapters.kafka.last_changes",
    }
    program = f"{SERVER}\nfrom pointsman_server.adapters import kafka\nkafka.load()"
    assert loaded(program, wanted) == wanted


def test_no_other_name_is_there() -> None:
    from pointsman_server.adapters import kafka

    with pytest.raises(AttributeError, match="nothing"):
        _ = kafka.nothing


@pytest.mark.parametrize("first", ["", "import rich"])
def test_rich_is_still_there_for_those_who_want_it(first: str) -> None:
    program = f"{first}\nimport pointsman_server.telemetry\nimport rich.console"
    assert loaded(program, {"structlog", "rich.console"}) == {"structlog", "rich.console"}
