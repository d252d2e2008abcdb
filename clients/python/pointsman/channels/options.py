"""How the backends of a channel are called."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

DRAIN_SECONDS = 600.0
"""As long as Envoy drains by default."""

Metadata = Sequence[tuple[str, str | bytes]]
StickyKey = str | Callable[[Metadata], str]


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What the channels to the backends are made with."""

    credentials: grpc.ChannelCredentials | None = None
    plaintext: bool = True
    options: Sequence[tuple[str, Any]] = ()
    compression: grpc.Compression | None = None
    interceptors: Sequence[Any] = ()
    """Of asyncio alone: those for threads go around the channel as a whole."""

    def tls(self) -> grpc.ChannelCredentials:
        """Return the credentials for https: those given, or the authorities that gRPC trusts."""
        return self.credentials or grpc.ssl_channel_credentials()


def checked_drain(seconds: float) -> float:
    """Return ``seconds``. Raises ValueError unless they are finite and not negative."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"drain_seconds must be a number of seconds, at least 0, not {seconds}")
    return seconds


def sticky_key_source(sticky_key: StickyKey) -> Callable[[Metadata | None], str]:
    """Return what finds the sticky key of a call by its metadata. Raises TypeError for what is neither text nor that.

    What it returns raises TypeError where ``sticky_key`` is a function that returns no text.
    """
    if not callable(sticky_key):
        fixed = _checked_text("sticky_key must be", sticky_key)
        return lambda _: fixed
    function = sticky_key
    # Pairs whatever it was: what dict() makes of a grpc.aio.Metadata differs between releases.
    return lambda metadata: _checked_text("the function sticky_key must return", function(tuple(metadata or ())))


def _checked_text(what: str, found: object) -> str:
    if not isinstance(found, str):
        raise TypeError(f"{what} text, not {type(found).__name__}")
    return found
