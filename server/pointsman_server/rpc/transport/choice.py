"""Chooses the transport, and says why."""

from dataclasses import dataclass
from typing import Literal

Transport = Literal["grpcio", "envoy"]
Wanted = Literal["auto", "grpcio", "envoy"]


class TransportUnavailable(Exception):
    """The requested transport cannot run here; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A transport, and the reason for it."""

    transport: Transport
    reason: str

    @property
    def protocols(self) -> str:
        """The protocols that it takes, in words."""
        return "gRPC, gRPC-Web and JSON" if self.transport == "envoy" else "gRPC, but neither gRPC-Web nor JSON"


def choose(wanted: Wanted, *, missing: str) -> Choice:
    """Choose the transport; ``missing`` says what Envoy lacks here, or is empty. Raises TransportUnavailable."""
    if wanted == "grpcio":
        return Choice("grpcio", "POINTSMAN_TRANSPORT asks for it")
    if not missing:
        return Choice("envoy", "POINTSMAN_TRANSPORT asks for it" if wanted == "envoy" else "the fastest that runs here")
    if wanted == "envoy":
        raise TransportUnavailable(f"the transport envoy cannot run: {missing}; use grpcio or auto")
    return Choice("grpcio", f"envoy cannot run: {missing}")
