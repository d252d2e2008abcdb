"""The addresses and settings of the brokers. Imports librdkafka only on use, so servers without Kafka never do."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pointsman_server.ports.broker import BrokerUnavailable

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

logger = logging.getLogger(__name__)


class _DebugOnly(logging.LoggerAdapter[logging.Logger]):
    """Logs the lines of librdkafka at DEBUG: every lost connection makes several. Adapters log what matters."""

    def log(self, _level: int, msg: object, *args: object, **kwargs: Any) -> None:  # type: ignore[override]
        super().log(logging.DEBUG, msg, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """A Kafka cluster. ``options`` are further settings of librdkafka, as for TLS and SASL; they may hold secrets."""

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def config(self, **settings: object) -> dict[str, Any]:
        """Build the settings of a client. ``settings`` override ``options``; ``_`` in their names stands for a dot."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": "pointsman",
            # The time in which half-open connections and stopped brokers are detected.
            "socket.timeout.ms": 10_000,
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2_000,
            "logger": _DebugOnly(logger, {}),
            "error_cb": _ignore,
            **self.options,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }

    def unavailable(self, cause: "Exception | KafkaError | None" = None) -> BrokerUnavailable:
        """Make the error to raise. ``cause``, if it is a KafkaError or holds one, becomes part of the text."""
        from confluent_kafka import KafkaError, KafkaException

        error = cause.args[0] if isinstance(cause, KafkaException) else cause
        detail = f"failed: {error.str()}" if isinstance(error, KafkaError) else "cannot be reached"
        return BrokerUnavailable(f"Kafka at {self.bootstrap_servers} {detail}")


def _ignore(_error: "KafkaError") -> None:
    """Without a callback librdkafka logs errors; here callers get them as results."""
