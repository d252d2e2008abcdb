"""The access log: one line per call, at debug for all of them, at info for faults of the server and a sample."""

import logging
import random
import time

from grpc import StatusCode

from pointsman_server.rpc.call import Call
from pointsman_server.telemetry.logs import get_logger, verbosity

log = get_logger(__name__)

SERVER_FAULTS = frozenset({StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.DATA_LOSS})


class AccessLog:
    """Logs calls. ``sample`` is the share of calls, 0 to 1, that are logged at info with any status code."""

    def __init__(self, sample: float) -> None:
        self._sample = sample

    @property
    def samples(self) -> bool:
        """Whether calls that end with OK may be logged whatever the level of the log."""
        return bool(self._sample)

    @property
    def logs_answers(self) -> bool:
        """Whether calls that end with OK may be logged now."""
        return self.samples or verbosity.debug

    def record(self, method: str, code: StatusCode, begun: float, call: Call) -> None:
        """Log a call that began at ``begun`` by ``time.perf_counter`` and has just ended."""
        if code in SERVER_FAULTS or (self._sample and random.random() < self._sample):  # noqa: S311 - a sample
            log.info("call", **_facts(method, code, begun, call))
        elif log.is_enabled_for(logging.DEBUG):
            log.debug("call", **_facts(method, code, begun, call))


def _facts(method: str, code: StatusCode, begun: float, call: Call) -> dict[str, object]:
    return {
        "method": method,
        "code": code.name,
        "milliseconds": round((time.perf_counter() - begun) * 1000, 3),
        "peer": call.peer,
        "request_id": call.request_id,
    }
