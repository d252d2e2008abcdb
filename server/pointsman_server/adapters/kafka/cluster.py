"""The addresses and settings of the brokers. Imports librdkafka only on use, so servers without Kafka never do."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pointsman_server.adapters.kafka.client_errors import ClientErrors
from pointsman_server.adapters.kafka.explanations import explain
from pointsman_server.adapters.kafka.refusals import Refusals
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
    """A Kafka cluster, and who we are there.

    ``options`` are further settings of librdkafka, as for TLS and SASL; they may hold secrets. ``user`` is for errors.
    ``refusals``: what the clients of this cluster are refused.
    """

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    user: str = "this server"
    group_prefix: str = "pointsman"
    refusals: Refusals = field(default_factory=Refusals, repr=False, compare=False)

    def config(self, errors: "Callable[[KafkaError], None] | None" = None, **settings: object) -> dict[str, Any]:
        """Build the settings of a client, which reports to ``errors``.

        ``settings`` override ``options``; ``_`` in their names stands for a dot.
        """
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": "pointsman",
            # The time in which half-open connections and stopped brokers are detected.
            "socket.timeout.ms": 10_000,
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2_000,
            "logger": _DebugOnly(logger, {}),
            "error_cb": errors or _ignore,
            **self.options,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }

    def group(self, name: str) -> str:
        """Return the full name of one of our groups."""
        return f"{self.group_prefix}-{name}"

    def unavailable(
        self,
        cause: "Exception | KafkaError | None" = None,
        errors: ClientErrors | None = None,
        *,
        topic: str = "the topic",
        group: str = "the group",
    ) -> BrokerUnavailable:
        """Make the error to raise, which says in words what is wrong and what to do.

        ``cause`` is a KafkaError or holds one. ``errors`` are those of the client; ``topic`` and ``group`` it uses.
        """
        from confluent_kafka import KafkaError, KafkaException

        error = cause.args[0] if isinstance(cause, KafkaException) else cause
        error = error if isinstance(error, KafkaError) else None
        reported = errors.cause if errors else None
        certificate = self.options.get("ssl.certificate.location", "")
        return BrokerUnavailable(
            f"Kafka at {self.bootstrap_servers} "
            + explain(error, reported, user=self.user, topic=topic, group=group, certificate=certificate)
        )


def _ignore(_error: "KafkaError") -> None:
    """Without a callback librdkafka logs errors; here callers get them as results."""
