"""Why a client of librdkafka cannot connect. Its results often say only that time is up."""

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

# An earlier cause yields to a lesser one only when it is so old.
KEEP_SECONDS = 10.0
_PLACE = re.compile(r"^\S+/(bootstrap|\d+): ")
_MOMENT = re.compile(r" \(after \d+ms in state \w+[^)]*\)")


class ClientErrors:
    """The ``error_cb`` of one client. ``cause`` is the last error that says why it cannot connect, or None.

    ``all_down``: there is no connection to any broker.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = 0.0
        self.cause: KafkaError | None = None
        self.all_down = False

    def __call__(self, error: "KafkaError") -> None:
        """Take note of an error. librdkafka calls this during a poll."""
        if error.code() == error._ALL_BROKERS_DOWN:  # noqa: SLF001 - a constant
            self.all_down = True
        elif self._replaces(error):
            self.cause, self._at = error, self._clock()

    def clear(self) -> None:
        """Forget everything: the brokers answer."""
        self.cause, self.all_down = None, False

    @property
    def refused(self) -> bool:
        """Whether every broker refuses this client, while another could read certificates that are new by then."""
        return self.all_down and self.cause is not None and _is_refusal(self.cause)

    def _replaces(self, error: "KafkaError") -> bool:
        if self.cause is None or _is_refusal(error) or not _is_refusal(self.cause):
            return True
        return self._clock() - self._at > KEEP_SECONDS


def _is_refusal(error: "KafkaError") -> bool:
    return error.code() in {error._AUTHENTICATION, error._SSL} or is_alert(error)  # noqa: SLF001 - constants


def is_alert(error: "KafkaError") -> bool:
    """Tell whether the broker ended the TLS handshake, as it does with client certificates that it refuses."""
    return error.code() == error._TRANSPORT and "alert" in error.str()  # noqa: SLF001 - a constant


def words(error: "KafkaError") -> str:
    """Return the text of ``error`` without the broker and the milliseconds, which differ each time."""
    return _MOMENT.sub("", _PLACE.sub("", error.str()))[:400]
