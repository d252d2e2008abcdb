"""PostgreSQL, Redis and Kafka from wheels, for ``pointsman-server dev`` and for the tests.

``start`` runs a *keeper*, ``python -m pointsman_server.embedded``, which starts the engines, prints where they answer,
and lives until its stdin ends. The caller holds the other end of that pipe, so the engines end with it in every case,
SIGKILL included; and on Linux the kernel ends the engines with the keeper (PR_SET_PDEATHSIG).
"""

from pointsman_server.embedded.engines import EngineError
from pointsman_server.embedded.handle import ENGINES, Engines, start

__all__ = ["ENGINES", "EngineError", "Engines", "start"]
