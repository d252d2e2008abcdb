"""Which brokers, and how to reach them. Loads no librdkafka, so that a server without Kafka does not either."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pointsman_server.ports.broker import BrokerUnavailable

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

logger = logging.getLogger(__name__)


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """Takes the lines of librdkafka, which has much to say of every lost connection; adapters say what matters."""

    def log(self, _level: int, msg: object, *args: object, **kwargs: Any) -> None:  # type: ignore[override]
        """Log at DEBUG, whatever librdkafka thinks of it."""
        super().log(logging.DEBUG, msg, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """Where the brokers are. ``options`` are further settings of librdkafka, as for TLS and SASL; they hold secrets."""

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def config(self, **settings: object) -> dict[str, Any]:
        """Build the settings of a client; in ``settings`` every ``_`` stands for a dot, and they win."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": "pointsman",
            # Half-open connections and stopped brokers are found out in this time.
            "socket.timeout.ms": 10_000,
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2_000,
            "logger": _Quiet(logger, {}),
            "error_cb": _ignore,
            **self.options,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }

    def unavailable(self, cause: "Exception | KafkaError | None" = None) -> BrokerUnavailable:
        """Say that these brokers cannot be reached; a KafkaError becomes part of the text."""
        from confluent_kafka import KafkaError, KafkaException

        error = cause.args[0] if isinstance(cause, KafkaException) else cause
        detail = f"failed: {error.str()}" if isinstance(error, KafkaError) else "cannot be reached"
        return BrokerUnavailable(f"Kafka at {self.bootstrap_servers} {detail}")


def _ignore(_error: "KafkaError") -> None:
    """Ignore errors of the client: each call returns its own."""
