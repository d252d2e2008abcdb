"""app.preload: what a server process has loaded before it starts, in a process of its own."""

import subprocess
import sys

import pytest

SHOW = """
import gc, sys
from pointsman_server.app.preload import preload
preload(with_kafka={with_kafka}, with_xds={with_xds})
modules = ("pointsman_server.app.application", "psycopg", "confluent_kafka", "alembic")
modules += ("pointsman_server.app.xds", "pointsman_server.xds")
loaded = [name in sys.modules for name in modules]
print(loaded, gc.get_freeze_count() > 10_000, gc.isenabled(), sys.getswitchinterval())
"""


@pytest.mark.parametrize(("with_kafka", "with_xds"), [(True, False), (False, True), (False, False)])
def test_the_server_is_loaded_and_frozen_and_what_few_use_only_where_they_do(with_kafka: bool, with_xds: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW.format(with_kafka=with_kafka, with_xds=with_xds)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"{[True, True, with_kafka, False, with_xds, with_xds]} True True 0.0005\n"
